//! The whole of bitSpire as one world: structure, crash and end-to-end tests.
