//! Which rows of a sequence of ids are soft tokens: runs of placeholder ids, filled with the media in order.

use std::collections::VecDeque;
use std::sync::Arc;

use carat_model::config::Placeholders;
use carat_model::{Piece, SoftKind};
use carat_runtime::encoders::SoftTokens;
use carat_tensor::TokenId;

/// The sequence with soft tokens in the place of placeholder runs. Without any media placeholders stay tokens.
///
/// # Errors
/// If a run is not filled by whole media, or media are left; says which, what was found and what was expected.
pub fn fill<'a>(
    ids: &'a [TokenId],
    media: &'a [(String, Arc<SoftTokens>)],
    placeholders: &Placeholders,
) -> Result<Vec<Piece<'a>>, String> {
    if media.is_empty() {
        return Ok(vec![Piece::Tokens(ids)]);
    }
    let of_kind = |kind| media.iter().filter(move |(_, soft)| soft.kind == kind).collect::<VecDeque<_>>();
    let mut left = SoftKind::ALL.map(of_kind);
    let (mut pieces, mut at, mut runs) = (Vec::new(), 0, 0);
    while at < ids.len() {
        let kind = placeholders.kind(ids[at]);
        let n = ids[at..].iter().take_while(|id| placeholders.kind(**id) == kind).count();
        let run = at..at + n;
        at = run.end;
        let Some(kind) = kind else {
            pieces.push(Piece::Tokens(&ids[run]));
            continue;
        };
        runs += 1;
        let mut filled = 0;
        while filled < n {
            let place = format!("run {runs} of placeholders, {n} of {} from token {} on", kind.name(), run.start);
            let Some((name, soft)) = left[kind as usize].pop_front() else {
                return Err(format!("{place}: found soft tokens for {filled}; expected another --{}", kind.name()));
            };
            filled += soft.n;
            if filled > n {
                let expected = filled;
                return Err(format!(
                    "{place}: found {n} ids; expected {expected}, with the {} soft tokens of {name}",
                    soft.n
                ));
            }
            pieces.push(Piece::Soft { kind, n: soft.n, rows: &soft.rows });
        }
    }
    match left.iter().flatten().next() {
        None => Ok(pieces),
        Some((name, soft)) => {
            Err(format!("{name}: found no run of {} ids for it; expected {} in --tokens", soft.kind.name(), soft.n))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(sizes: &[(SoftKind, usize)]) -> Vec<(String, Arc<SoftTokens>)> {
        let soft = |&(kind, n): &(SoftKind, usize)| SoftTokens { id: 0, kind, n, rows: vec![0.0; 2 * n] };
        sizes.iter().map(|size| (format!("{}.bin", size.1), Arc::new(soft(size)))).collect()
    }

    fn ids(text: &str) -> Vec<TokenId> {
        text.bytes().map(|b| TokenId(u32::from(b))).collect()
    }

    const PLACES: Placeholders = Placeholders {
        image: Some(TokenId(b'i' as u32)),
        audio: Some(TokenId(b'a' as u32)),
        video: Some(TokenId(b'v' as u32)),
    };

    #[test]
    fn runs_are_filled_in_order() {
        let media = media(&[(SoftKind::Image, 2), (SoftKind::Audio, 1), (SoftKind::Image, 3)]);
        let ids = ids("xiiyazziii");
        let sizes: Vec<usize> = fill(&ids, &media, &PLACES).unwrap().iter().map(Piece::n_rows).collect();
        assert_eq!(sizes, [1, 2, 1, 1, 2, 3]);
        assert_eq!(fill(&ids, &[], &PLACES).unwrap().len(), 1);
    }

    #[track_caller]
    fn refuses(text: &str, sizes: &[(SoftKind, usize)], words: &[&str]) {
        let (ids, media) = (ids(text), media(sizes));
        let error = fill(&ids, &media, &PLACES).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn runs_that_do_not_fit_are_named() {
        let image = SoftKind::Image;
        refuses("xiix", &[(image, 3)], &["run 1", "image", "token 1", "found 2 ids", "expected 3", "3.bin"]);
        refuses("xiixi", &[(image, 2)], &["run 2", "token 4", "--image"]);
        refuses("xiix", &[(image, 2), (image, 5)], &["5.bin", "expected 5"]);
        refuses("xiix", &[(SoftKind::Audio, 2)], &["run 1", "--image"]);
    }
}
