//! What data is: element types, quantised block formats, read-only tensors, ids, and `Backend`, the one
//! seam between the model and the hardware.
//!
//! Nothing here does input or output, starts a thread or knows a model.
#![forbid(unsafe_code)]

pub mod backend;
pub mod dtype;
pub mod ids;
pub mod quant;
pub mod tensor;

pub use backend::Backend;
pub use dtype::DType;
pub use ids::TokenId;
pub use tensor::{Bytes, Tensor};
