//! How many soft tokens a picture may take, and the grid of blocks that follows.
//!
//! Source: `get_aspect_ratio_preserving_size` in transformers' `image_processing_gemma4.py`.

use super::Picture;
use crate::Error;

/// Width and height of the block behind one soft token, in pixels: 3×3 patches of 16×16.
pub(crate) const BLOCK: usize = 48;

/// The most soft tokens a picture may take: one of five numbers that the models were trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(usize);

impl Budget {
    /// All of them, smallest first.
    pub const ALL: [Budget; 5] = [Budget(70), Budget(140), Budget(280), Budget(560), Budget(1120)];

    /// What the reference takes when nobody says otherwise.
    pub const DEFAULT: Budget = Budget(280);

    /// What the reference takes for a frame of a video.
    pub const FRAME: Budget = Budget(70);

    /// The budget of so many tokens. An error unless it is one of [`Budget::ALL`].
    pub fn new(tokens: u32) -> Result<Budget, Error> {
        Self::ALL.into_iter().find(|budget| budget.0 == tokens as usize).ok_or(Error::Budget { found: tokens })
    }

    /// The smallest that doesn't shrink the picture, or the largest: nothing is lost, and nothing is spent on pixels
    /// that aren't there. This is our choice; the reference has no such rule.
    pub fn auto(picture: &Picture) -> Budget {
        let pixels = picture.width * picture.height;
        let enough = Self::ALL.into_iter().find(|budget| budget.pixels() >= pixels);
        enough.unwrap_or(Self::ALL[Self::ALL.len() - 1])
    }

    /// Soft tokens.
    pub fn tokens(self) -> usize {
        self.0
    }

    fn pixels(self) -> usize {
        self.0 * BLOCK * BLOCK
    }

    /// The grid that fills the budget as far as whole blocks allow and keeps the shape of `width` × `height` pixels,
    /// both at least 1. A strip too narrow for one block is widened to one.
    pub fn fit(self, width: usize, height: usize) -> Grid {
        let factor = (self.pixels() as f64 / (width * height) as f64).sqrt();
        let blocks = |side: usize| (factor * side as f64 / BLOCK as f64).floor() as usize;
        match (blocks(width), blocks(height)) {
            // Not both are 0: the ideal sides multiply to at least 70 blocks. So the other side is the longer one.
            (_, 0) => Grid { columns: (width / height).min(self.0), rows: 1 },
            (0, _) => Grid { columns: 1, rows: (height / width).min(self.0) },
            (columns, rows) => Grid { columns, rows },
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Blocks of 48×48 pixels, each of which becomes one soft token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks side by side.
    pub columns: usize,
    /// Blocks on top of each other.
    pub rows: usize,
}

impl Grid {
    /// Soft tokens of a picture of this grid.
    pub fn tokens(self) -> usize {
        self.columns * self.rows
    }

    /// Width in pixels.
    pub fn width(self) -> usize {
        self.columns * BLOCK
    }

    /// Height in pixels.
    pub fn height(self) -> usize {
        self.rows * BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(width: usize, height: usize) -> usize {
        Budget::auto(&Picture { width, height, rgb: vec![0; width * height * 3] }).tokens()
    }

    #[test]
    fn auto_takes_the_smallest_budget_that_loses_nothing() {
        assert_eq!([auto(1, 1), auto(480, 336), auto(481, 336)], [70, 70, 140]);
        assert_eq!([auto(800, 800), auto(1000, 1000), auto(4000, 1000)], [280, 560, 1120]);
    }

    #[test]
    fn every_grid_is_within_its_budget() {
        for budget in Budget::ALL {
            for width in [1, 2, 3, 47, 48, 49, 100, 767, 1000, 5000, 65_535] {
                for height in [1, 2, 7, 48, 333, 768, 1024, 65_535] {
                    let grid = budget.fit(width, height);
                    assert!((1..=budget.tokens()).contains(&grid.tokens()), "{width}x{height}: {grid:?}");
                }
            }
        }
    }

    #[test]
    fn other_budgets_are_refused_by_name() {
        assert_eq!(Budget::new(560).unwrap().tokens(), 560);
        let error = Budget::new(256).unwrap_err().to_string();
        assert_eq!(error, "a picture can't take 256 tokens; expected one of 70, 140, 280, 560, 1120");
    }
}
