//! The experts of a layer, however the file holds them: all in one tensor, gates and ups apart, or one by one.
//!
//! Kernels find an expert by a stride, so experts that lie one by one are brought together in memory.

use carat_tensor::{Bytes, DType, Tensor};

use super::names::{
    EXPERT_DOWN, EXPERT_GATE, EXPERT_UP, EXPERTS_DOWN, EXPERTS_GATE, EXPERTS_GATE_UP, EXPERTS_UP, Name,
};
use super::source::Source;
use crate::ModelError;

/// The matrices of a layer's experts.
pub(super) enum ExpertTensors {
    /// `[n, 2 · width, d]`: gates first.
    Joined { gate_up: Tensor, down: Tensor },
    /// `[n, width, d]` each.
    Split { gate: Tensor, up: Tensor, down: Tensor },
}

/// Takes the experts of a layer: `n` of this `width` on a stream of `d`.
pub(super) fn take(
    source: &Source<'_>,
    layer: usize,
    n: usize,
    width: usize,
    d: usize,
) -> Result<ExpertTensors, ModelError> {
    let at = Some(layer);
    let matrix = |whole: Name, each: Name, shape: [usize; 3]| {
        if !source.has(whole, at) && source.has_expert(each, layer, 0) {
            return gather(source, each, layer, shape);
        }
        source.take(whole, at, &shape)
    };
    let down = matrix(EXPERTS_DOWN, EXPERT_DOWN, [n, d, width])?;
    let split = source.has(EXPERTS_GATE, at) || source.has_expert(EXPERT_GATE, layer, 0);
    if split && !source.has(EXPERTS_GATE_UP, at) {
        let gate = matrix(EXPERTS_GATE, EXPERT_GATE, [n, width, d])?;
        return Ok(ExpertTensors::Split { gate, up: matrix(EXPERTS_UP, EXPERT_UP, [n, width, d])?, down });
    }
    Ok(ExpertTensors::Joined { gate_up: source.take(EXPERTS_GATE_UP, at, &[n, 2 * width, d])?, down })
}

/// Brings matrices that lie one by one together; all must be of one type, or have integers that fit one.
fn gather(source: &Source<'_>, name: Name, layer: usize, [n, rows, cols]: [usize; 3]) -> Result<Tensor, ModelError> {
    let names: Vec<_> = (0..n).map(|expert| source.spell_expert(name, layer, expert)).collect();
    let scaled = names.iter().map(|name| source.scaled(name, &[rows, cols])).collect::<Result<Vec<_>, _>>()?;
    let common = common(scaled.iter().flatten().map(|scaled| scaled.dtype()));
    let (mut data, mut dtype) = (Vec::new(), None);
    for (name, scaled) in names.iter().zip(scaled) {
        let tensor = match scaled {
            Some(scaled) => scaled.tensor(common.unwrap_or_else(|| scaled.dtype()))?,
            None => source.take_named(name, &[rows, cols])?,
        };
        let first = *dtype.get_or_insert(tensor.dtype);
        if tensor.dtype != first {
            let expected = format!("{first}, as `{}`", names[0]);
            return Err(ModelError::Layout { name: name.clone(), found: tensor.dtype.to_string(), expected });
        }
        data.extend_from_slice(&tensor.data);
    }
    let dtype = dtype.unwrap_or(DType::F32);
    let name = source.spell(name, Some(layer));
    Ok(Tensor { name, dtype, shape: vec![n, rows, cols], data: Bytes::from_vec(data) })
}

/// The type that holds the integers and scales of all of these types; `None` where they are no integers.
fn common(mut dtypes: impl Iterator<Item = DType>) -> Option<DType> {
    let first = dtypes.next()?;
    let integers = |t: DType| matches!(t, DType::Q4_0 | DType::Q8_0 | DType::I8F32);
    dtypes.try_fold(first, |a, b| match (a, b) {
        (a, b) if a == b => Some(a),
        (a, b) if integers(a) && integers(b) => Some(DType::I8F32),
        _ => None,
    })
}
