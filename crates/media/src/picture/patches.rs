//! A picture cut into the squares that an encoder reads.
//!
//! Source: `convert_image_to_patches` and `pad_along_first_dim` in transformers' `image_processing_gemma4.py`,
//! `patches_merge` in `image_processing_gemma4_unified.py`: merging 3×3 patches gives the rows of one block.

use super::budget::BLOCK;
use super::{Budget, Picture, resize::resize};

/// What a picture is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patching {
    /// Patches of 16×16 pixels for a vision tower, nine to a soft token.
    Tower,
    /// Blocks of 48×48 pixels, one to a soft token: 12B has no tower.
    Blocks,
}

impl Patching {
    /// Width and height of a patch in pixels.
    pub fn side(self) -> usize {
        match self {
            Patching::Tower => 16,
            Patching::Blocks => BLOCK,
        }
    }

    /// What an encoder reads whose patches have so many pixels to a side.
    pub fn of_side(side: usize) -> Patching {
        if side == BLOCK { Patching::Blocks } else { Patching::Tower }
    }

    /// Patches of one soft token.
    pub fn per_token(self) -> usize {
        (BLOCK / self.side()).pow(2)
    }
}

/// An encoder's input: patches row by row, from the left.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// `[n_patches, side·side·3]` in [0, 1]: within a patch row by row, and of each pixel red, green, blue.
    pub values: Vec<f32>,
    /// `[n_patches]` places (column, row), counted in patches; (−1, −1) marks padding.
    pub positions: Vec<[i32; 2]>,
    /// Soft tokens that the encoder makes of them.
    pub soft_tokens: usize,
    /// How it was cut.
    pub patching: Patching,
}

impl Patches {
    /// With as many patches as the budget allows: the added ones are zeros at (−1, −1). The reference feeds its encoder
    /// so; what it computes for the others doesn't depend on it.
    pub fn padded(mut self, budget: Budget) -> Patches {
        let n_patches = (budget.tokens() * self.patching.per_token()).max(self.positions.len());
        self.values.resize(n_patches * self.patching.side().pow(2) * 3, 0.0);
        self.positions.resize(n_patches, [-1, -1]);
        self
    }
}

/// A picture in the size of its budget's grid, ready to be cut: much less than it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted(Picture);

impl Fitted {
    /// `picture` brought to the grid of `budget`.
    pub fn new(picture: &Picture, budget: Budget) -> Fitted {
        let grid = budget.fit(picture.width, picture.height);
        Fitted(resize(picture, grid.width(), grid.height()))
    }

    /// Its pixels: sides are multiples of 48.
    pub fn picture(&self) -> &Picture {
        &self.0
    }

    /// Cut into patches.
    pub fn patches(&self, patching: Patching) -> Patches {
        let Picture { width, height, rgb } = &self.0;
        let side = patching.side();
        let (columns, rows) = (width / side, height / side);
        let mut values = Vec::with_capacity(rgb.len());
        let mut positions = Vec::with_capacity(columns * rows);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            positions.push([column as i32, row as i32]);
            for y in row * side..(row + 1) * side {
                let start = (y * width + column * side) * 3;
                values.extend(rgb[start..start + side * 3].iter().map(|&byte| f32::from(byte) * (1.0 / 255.0)));
            }
        }
        let soft_tokens = (width / BLOCK) * (height / BLOCK);
        Patches { values, positions, soft_tokens, patching }
    }
}

/// `picture` brought to the grid of its budget and cut.
pub fn patches(picture: &Picture, budget: Budget, patching: Patching) -> Patches {
    Fitted::new(picture, budget).patches(patching)
}
