//! The carat command line.
#![forbid(unsafe_code)]
fn main() {}
