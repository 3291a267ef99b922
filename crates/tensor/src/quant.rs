//! Quantised block formats: layout, decode, encode.
