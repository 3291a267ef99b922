//! Development tasks: tidy checks.
#![forbid(unsafe_code)]
fn main() {}
