#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (raftz_tests::fuzz::target("capi").body)(input));
