#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kytx_fuzz::package(data));
