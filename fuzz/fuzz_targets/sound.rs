//! Runs `carat_fuzz_cases::sound` on the fuzzer's inputs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    carat_fuzz_cases::sound(data);
});
