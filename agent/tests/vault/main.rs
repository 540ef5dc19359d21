//! The real vault with simulated devices and a `net` that says what a test wants.

mod evidence;
mod hostile_net;
mod limits;
mod machine;
mod pairing;
mod restart;
mod sales;
