//! The bunker from the outside: real relays, real clients, restarts.

mod administration;
mod clients;
mod limits;
mod raw;
mod relay;
mod rest;
mod world;
