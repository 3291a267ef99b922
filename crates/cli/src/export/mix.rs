//! Which type each tensor is stored in.
//!
//! `q4_k_m` and `q6_k` are the mixes that are published under these names: token embeddings, and with them a tied
//! head, in Q6_K; values of attention and the last matrices of feed-forwards in Q6_K in those layers where it
//! helps most. What is small or chooses experts isn't quantised.
//!
//! Source: llama.cpp `src/llama-quant.cpp` (`llama_tensor_get_type_impl`, `tensor_type_fallback`).

use carat_model::load::{ModelTensor, Role};
use carat_tensor::DType;

/// What a model is quantised to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Mix {
    /// 4.5 bits a weight: the type of the published quantisation-aware checkpoints
    #[value(name = "q4_0")]
    Q4_0,
    /// About 4.8 bits a weight, the usual choice for other checkpoints
    #[value(name = "q4_k_m")]
    Q4KM,
    /// 6.6 bits a weight
    #[value(name = "q6_k")]
    Q6K,
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8_0,
    /// 16 bits: no quantisation
    #[value(name = "bf16")]
    Bf16,
}

impl Mix {
    /// `general.file_type` of GGUF files (llama.cpp `llama_ftype`).
    pub const fn file_type(self) -> u32 {
        match self {
            Mix::Q4_0 => 2,
            Mix::Q8_0 => 7,
            Mix::Q4KM => 15,
            Mix::Q6K => 18,
            Mix::Bf16 => 32,
        }
    }

    /// The type of most matrices.
    const fn base(self) -> DType {
        match self {
            Mix::Q4_0 => DType::Q4_0,
            Mix::Q4KM => DType::Q4K,
            Mix::Q6K => DType::Q6K,
            Mix::Q8_0 => DType::Q8_0,
            Mix::Bf16 => DType::BF16,
        }
    }

    /// The types of `tensors`, which are all of a model's of `n_layers`; `stored` says how the source holds one.
    pub fn types(self, tensors: &[ModelTensor], n_layers: usize, stored: impl Fn(&ModelTensor) -> DType) -> Vec<DType> {
        let n_values = tensors.iter().filter(|t| t.role == Role::Value).count();
        let mut value = 0;
        let of = |tensor: &ModelTensor| {
            let cols = tensor.shape.last().copied().unwrap_or(1);
            let wanted = match tensor.role {
                Role::Vector | Role::Router => return DType::F32,
                Role::PerLayerProjection => return if self == Mix::Bf16 { DType::BF16 } else { stored(tensor) },
                Role::Embedding | Role::PerLayerTable | Role::Head => self.of_embeddings(),
                Role::Value => {
                    value += 1;
                    self.finer(value - 1, n_values)
                }
                Role::Down => self.finer(tensor.layer.unwrap_or(0), n_layers),
                Role::Matrix => self.base(),
            };
            fitting(wanted, cols)
        };
        tensors.iter().map(of).collect()
    }

    const fn of_embeddings(self) -> DType {
        match self {
            Mix::Q4_0 | Mix::Q4KM | Mix::Q6K => DType::Q6K,
            Mix::Q8_0 | Mix::Bf16 => self.base(),
        }
    }

    /// The type of tensor `i` of `n` whose errors show most: the first and last eighth and every third between.
    const fn finer(self, i: usize, n: usize) -> DType {
        let more = i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
        match self {
            Mix::Q4KM if more => DType::Q6K,
            _ => self.base(),
        }
    }
}

/// `wanted`, or the nearest type whose blocks fit rows of `cols`.
fn fitting(wanted: DType, cols: usize) -> DType {
    let smaller = match wanted {
        DType::Q4K => DType::Q5_0,
        DType::Q6K => DType::Q8_0,
        other => other,
    };
    [wanted, smaller].into_iter().find(|t| t.row_bytes(cols).is_some()).unwrap_or(DType::BF16)
}
