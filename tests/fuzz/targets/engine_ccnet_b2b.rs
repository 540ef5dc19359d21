#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bitspire_fuzz::run("engine_ccnet_b2b", input);
});
