//! One codec per protocol.
