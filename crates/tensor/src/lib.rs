//! What data is: shapes, dtypes, quantised block formats, ids, and the Backend seam.
#![forbid(unsafe_code)]

pub mod ids;

pub use ids::TokenId;
