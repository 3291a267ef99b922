//! Finds what belongs to a matrix of codes: its scales, zero points and factors, their types and shapes checked.

use carat_tensor::DType;
use carat_weights::{StoredType, TensorInfo, Weights};

use super::{Codes, Grid, Kind, Second, layout};
use crate::ModelError;
use crate::load::quantization::Quantization;

/// Bits of packed integers that divide a word; versions of the package differ in how they pack others.
pub(super) const WIDTHS: [usize; 3] = [2, 4, 8];

/// Looks for the parts of one matrix.
pub(super) struct Finder<'a, 'q> {
    pub weights: &'a Weights,
    pub name: &'q str,
    pub shape: &'q [usize],
    pub quantization: &'q Quantization,
}

impl<'a> Finder<'a, '_> {
    fn part(&self, end: &str) -> Option<&'a TensorInfo> {
        self.weights.get(&format!("{}{end}", self.name))
    }

    fn refuse(&self, found: impl Into<String>, expected: impl Into<String>) -> ModelError {
        layout(self.name, found, expected)
    }

    /// The codes' shape must be the matrix', its columns divided as stored.
    fn expect_shape(&self, info: &TensorInfo, cols: usize) -> Result<(), ModelError> {
        let mut expected = self.shape.to_vec();
        if let Some(last) = expected.last_mut() {
            *last = cols;
        }
        if info.shape == expected {
            return Ok(());
        }
        Err(ModelError::WrongShape { name: info.name.clone(), found: info.shape.clone(), expected })
    }

    pub fn codes(&self, info: &'a TensorInfo, stored: &str, packed: bool) -> Result<Codes<'a>, ModelError> {
        let cols = self.shape.last().copied().unwrap_or(1);
        match (stored, packed) {
            ("I32", true) => {
                let words = info.shape.last().copied().unwrap_or(0);
                let Some(bits) = WIDTHS.into_iter().find(|bits| cols.div_ceil(32 / bits) == words) else {
                    let expected = format!("words for {cols} columns of 2, 4 or 8 bits");
                    return Err(self.refuse(format!("{words} words a row"), expected));
                };
                self.expect_shape(info, words)?;
                if self.part("_g_idx").is_some() {
                    return Err(self.refuse("columns in another order (`_g_idx`)", "columns in their own order"));
                }
                let zeros = self.part("_zero_point");
                if let Some(zeros) = zeros.filter(|z| z.dtype != StoredType::Other("I32")) {
                    return Err(self.refuse(format!("zero points in {}", zeros.dtype), "packed I32"));
                }
                Ok(Codes::Packed { words: &info.data, bits, zeros: zeros.map(|z| &z.data[..]) })
            }
            ("I8", false) => self.expect_shape(info, cols).map(|()| Codes::Int8(&info.data)),
            ("F8_E4M3", false) => self.expect_shape(info, cols).map(|()| Codes::Float8(&info.data)),
            ("U8", _) => self.expect_shape(info, cols / 2).map(|()| Codes::Float4(&info.data)),
            _ => Err(self.refuse(
                format!("codes of type {stored}"),
                "F32, F16 or BF16; or I32 (packed), I8, F8_E4M3 or U8 (4-bit floats) with scales",
            )),
        }
    }

    pub fn scales(&self, codes: Codes<'_>) -> Result<Grid<'a>, ModelError> {
        let Some(info) = self.part("_scale").or_else(|| self.part("_scale_inv")) else {
            let expected = format!("scales in `{0}_scale` or `{0}_scale_inv`", self.name);
            return Err(self.refuse("codes without scales", expected));
        };
        let floats = matches!(codes, Codes::Float4(_));
        let kind = match info.dtype {
            StoredType::Known(DType::F32) => Kind::F32,
            StoredType::Known(DType::F16) => Kind::F16,
            StoredType::Known(DType::BF16) => Kind::BF16,
            StoredType::Other("F8_E4M3") if floats => Kind::E4M3,
            StoredType::Other("U8" | "F8_E8M0") if floats => Kind::E8M0,
            other => return Err(self.refuse(format!("scales of type {other}"), "F32, F16 or BF16")),
        };
        let (cols, rows) =
            (self.shape.last().copied().unwrap_or(1), self.shape.iter().rev().nth(1).copied().unwrap_or(1));
        let matrices: usize = self.shape.iter().rev().skip(2).product();
        let whole =
            Grid { data: &info.data, kind, width: 1, rows: (rows * matrices, 1), step: (rows * matrices, cols) };
        // `[rows, columns]` of the scales of each matrix.
        let (height, width) = match info.shape[..] {
            [] | [1] => {
                self.check_zeros(codes, rows * matrices, 1)?;
                return Ok(whole);
            }
            [n] if matrices > 1 && n == matrices => (1, 1),
            [n] => (n, 1),
            [.., height, width] => (height, width),
        };
        let count: usize = info.shape.iter().product();
        match self.quantization.steps([rows, cols], [height, width]) {
            Some([row_step, col_step]) if count == matrices * height * width => {
                self.check_zeros(codes, rows * matrices, width)?;
                Ok(Grid { data: &info.data, kind, width, rows: (rows, height), step: (row_step, col_step) })
            }
            _ => {
                let expected = format!("one scale, or for {:?} one for each row, group or block", self.shape);
                Err(self.refuse(format!("scales {:?}", info.shape), expected))
            }
        }
    }

    fn check_zeros(&self, codes: Codes<'_>, rows: usize, width: usize) -> Result<(), ModelError> {
        let (zeros, bits) = match codes {
            Codes::Packed { zeros: None, .. } => return Ok(()),
            Codes::Packed { zeros: Some(zeros), bits, .. } => (zeros, bits),
            // Less its zero point, a code may have 9 bits.
            _ if self.part("_zero_point").is_some_and(|zeros| zeros.data.iter().any(|byte| *byte != 0)) => {
                return Err(self.refuse("zero points other than 0", "none, or those of packed integers"));
            }
            _ => return Ok(()),
        };
        let expected = 4 * rows.div_ceil(32 / bits) * width;
        if self.shape.len() > 2 {
            return Err(self.refuse("zero points of several matrices in one", "those of one matrix"));
        }
        if zeros.len() == expected {
            return Ok(());
        }
        Err(self.refuse(format!("{} bytes of zero points", zeros.len()), format!("{expected}")))
    }

    pub fn second(&self) -> Result<Second, ModelError> {
        let (info, kind): (_, fn(Vec<f32>) -> Second) = match (self.part("_scale_2"), self.part("_global_scale")) {
            (Some(info), None) => (info, Second::Times),
            (None, Some(info)) => (info, Second::Over),
            (None, None) => return Ok(Second::Times(Vec::new())),
            (Some(_), Some(_)) => return Err(self.refuse("`_scale_2` and `_global_scale`", "one of them")),
        };
        let values: Vec<f32> = match info.dtype {
            StoredType::Known(DType::F32) => info.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            other => return Err(self.refuse(format!("a second scale of type {other}"), "F32")),
        };
        let matrices: usize = self.shape.iter().rev().skip(2).product();
        if values.len() != 1 && values.len() != matrices {
            return Err(self.refuse(format!("{} second scales", values.len()), "one, or one for each expert"));
        }
        Ok(kind(values))
    }
}
