#![no_main]
//! The target that the environment names (`BITSPIRE_FUZZ`): one program for all of them, so that CI
//! links once.

use std::sync::LazyLock;

static NAME: LazyLock<String> =
    LazyLock::new(|| std::env::var("BITSPIRE_FUZZ").expect("BITSPIRE_FUZZ names a target"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bitspire_fuzz::run(&NAME, input);
});
