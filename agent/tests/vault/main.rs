//! The real vault with simulated devices and a `net` that says what a test wants.

mod hostile_net;
mod machine;
mod restart;
mod sales;
