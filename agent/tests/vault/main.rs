//! The real vault with simulated devices and a `net` that says what a test wants.

mod archive;
mod bays;
mod door;
mod evidence;
mod hand_over;
mod hostile_messages;
mod hostile_net;
mod limits;
mod machine;
mod pairing;
mod receipts;
mod recycler;
mod relay;
mod restart;
mod sales;
mod service_mode;
