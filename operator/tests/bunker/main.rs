//! The bunker from the outside: real relays, real clients, restarts.

mod administration;
mod battery;
mod clients;
mod lies;
mod limits;
mod npm;
mod nsecbunkerd;
mod raw;
mod relay;
mod rest;
mod traps;
mod world;
