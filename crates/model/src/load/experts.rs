//! The experts of a layer, however the file holds them: all in one tensor, gates and ups apart, or one by one.
//!
//! Kernels find an expert by a stride, so experts that lie one by one are brought together in memory.

use carat_tensor::{Bytes, DType, Tensor};
use carat_weights::release;

use super::names::{
    EXPERT_DOWN, EXPERT_GATE, EXPERT_UP, EXPERTS_DOWN, EXPERTS_GATE, EXPERTS_GATE_UP, EXPERTS_UP, Name,
};
use super::scaled::Scaled;
use super::source::Source;
use crate::ModelError;

/// The gates and ups of a layer's experts.
pub(super) enum GateUp {
    /// `[n, 2 · width, d]`: gates first.
    Joined(Tensor),
    /// `[n, width, d]` each.
    Split { gate: Tensor, up: Tensor },
}

/// Sizes of a layer's experts.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub layer: usize,
    pub n: usize,
    pub width: usize,
    pub d: usize,
}

/// Takes the gates and ups.
pub(super) fn gate_up(source: &Source<'_>, sizes: Sizes) -> Result<GateUp, ModelError> {
    let Sizes { layer, n, width, d } = sizes;
    let at = Some(layer);
    let split = source.has(EXPERTS_GATE, at) || source.has_expert(EXPERT_GATE, layer, 0);
    if split && !source.has(EXPERTS_GATE_UP, at) {
        let gate = whole_or_gathered(source, EXPERTS_GATE, EXPERT_GATE, layer, [n, width, d])?;
        let up = whole_or_gathered(source, EXPERTS_UP, EXPERT_UP, layer, [n, width, d])?;
        return Ok(GateUp::Split { gate, up });
    }
    Ok(GateUp::Joined(source.take(EXPERTS_GATE_UP, at, &[n, 2 * width, d])?))
}

/// Takes the last matrices: `[n, d, width]`.
pub(super) fn down(source: &Source<'_>, sizes: Sizes) -> Result<Tensor, ModelError> {
    let Sizes { layer, n, width, d } = sizes;
    whole_or_gathered(source, EXPERTS_DOWN, EXPERT_DOWN, layer, [n, d, width])
}

fn whole_or_gathered(
    source: &Source<'_>,
    whole: Name,
    each: Name,
    layer: usize,
    shape: [usize; 3],
) -> Result<Tensor, ModelError> {
    if !source.has(whole, Some(layer)) && source.has_expert(each, layer, 0) {
        return gather(source, each, layer, shape);
    }
    source.take(whole, Some(layer), &shape)
}

/// Gates and ups of each expert, one after the other, in one tensor.
pub(super) fn join(gate_up: GateUp) -> Result<Tensor, ModelError> {
    let (gate, up) = match gate_up {
        GateUp::Joined(tensor) => return Ok(tensor),
        GateUp::Split { gate, up } => (gate, up),
    };
    if gate.dtype != up.dtype {
        let (found, expected) = (up.dtype.to_string(), format!("{}, as `{}`", gate.dtype, gate.name));
        return Err(ModelError::Layout { name: up.name, found, expected });
    }
    let len = gate.data.len() / gate.shape[0];
    let mut data = Vec::with_capacity(2 * gate.data.len());
    for (gate, up) in gate.data.chunks_exact(len).zip(up.data.chunks_exact(len)) {
        data.extend_from_slice(gate);
        data.extend_from_slice(up);
    }
    let shape = vec![gate.shape[0], 2 * gate.shape[1], gate.shape[2]];
    Ok(Tensor { name: gate.name, dtype: gate.dtype, shape, data: Bytes::from_vec(data) })
}

/// One expert's matrix as the file holds it.
enum Found<'a> {
    Codes(Scaled<'a>),
    Plain(Tensor),
}

/// Brings matrices that lie one by one together; all must be of one type, or have integers that fit one.
fn gather(source: &Source<'_>, name: Name, layer: usize, [n, rows, cols]: [usize; 3]) -> Result<Tensor, ModelError> {
    // All are found before there is room for all.
    let find = |expert| {
        let name = source.spell_expert(name, layer, expert);
        Ok(match source.scaled(&name, &[rows, cols])? {
            Some(scaled) => Found::Codes(scaled),
            None => Found::Plain(source.take_named(&name, &[rows, cols])?),
        })
    };
    let found = (0..n).map(find).collect::<Result<Vec<_>, ModelError>>()?;
    let common = common(found.iter().filter_map(|found| match found {
        Found::Codes(scaled) => Some(scaled.dtype()),
        Found::Plain(_) => None,
    }));
    let (mut data, mut dtype) = (Vec::new(), None::<DType>);
    for found in found {
        let tensor = match found {
            Found::Codes(scaled) => scaled.tensor(common.unwrap_or_else(|| scaled.dtype()))?,
            Found::Plain(tensor) => tensor,
        };
        if dtype.is_none() {
            data.reserve_exact(n * tensor.data.len());
        }
        let first = *dtype.get_or_insert(tensor.dtype);
        if tensor.dtype != first {
            let expected = format!("{first}, as `{}`", source.spell_expert(name, layer, 0));
            return Err(ModelError::Layout { name: tensor.name, found: tensor.dtype.to_string(), expected });
        }
        data.extend_from_slice(&tensor.data);
        release(&tensor.data);
    }
    let dtype = dtype.unwrap_or(DType::F32);
    let name = source.spell(name, Some(layer));
    Ok(Tensor { name, dtype, shape: vec![n, rows, cols], data: Bytes::from_vec(data) })
}

/// The type that holds the integers and scales of all of these types; `None` where they are no integers.
pub(super) fn common(mut dtypes: impl Iterator<Item = DType>) -> Option<DType> {
    let first = dtypes.next()?;
    let integers = |t: DType| matches!(t, DType::Q4_0 | DType::Q8_0 | DType::I8F32);
    dtypes.try_fold(first, |a, b| match (a, b) {
        (a, b) if a == b => Some(a),
        (a, b) if integers(a) && integers(b) => Some(DType::I8F32),
        _ => None,
    })
}
