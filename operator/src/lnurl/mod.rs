//! LNURL-withdraw (LUD-01, LUD-03, LUD-17) for cash_in and for claims.

pub mod invoice;
