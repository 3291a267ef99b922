//! Runs `carat_fuzz_cases::picture` on the fuzzer's inputs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    carat_fuzz_cases::picture(data);
});
