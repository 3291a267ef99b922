//! Development only: operation cases, tolerances, golden reader.
#![forbid(unsafe_code)]
