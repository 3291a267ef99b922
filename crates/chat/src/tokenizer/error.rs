//! Why a vocabulary was refused. Encoding and decoding never fail; everything is checked at load.

/// A vocabulary that can't be used as Gemma defines it.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not the JSON of a `tokenizer.json`.
    #[error("tokenizer.json can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The file asks for a step that Gemma's tokenizer doesn't have.
    #[error("the tokenizer's {field} is {found}; supported is {expected}")]
    Unsupported {
        /// Which setting.
        field: &'static str,
        /// What the file says.
        found: String,
        /// What this tokenizer does.
        expected: &'static str,
    },
    /// More entries than the tables are made for, or none.
    #[error("the tokenizer has {found} {what}; supported are 1 to {limit}")]
    Size {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// The most that fit.
        limit: usize,
    },
    /// A piece too long to look for the merges that make it.
    #[error("token {id} has {found} bytes; where merges are made from scores, at most {limit} are supported")]
    PieceLength {
        /// The entry.
        id: u32,
        /// Its length in bytes.
        found: usize,
        /// The longest that is split.
        limit: usize,
    },
    /// Parallel arrays of different lengths.
    #[error("the tokenizer has {found} {what} for {expected} tokens")]
    Length {
        /// Which array.
        what: &'static str,
        /// Its length.
        found: usize,
        /// Number of tokens.
        expected: usize,
    },
    /// Two entries with the same text.
    #[error("token {id} `{piece}` repeats token {first}")]
    DuplicatePiece {
        /// The later entry.
        id: u32,
        /// The earlier entry.
        first: u32,
        /// Their text.
        piece: String,
    },
    /// Two texts with the same id.
    #[error("token id {id} is used twice, for `{first}` and `{second}`")]
    DuplicateId {
        /// The id.
        id: u32,
        /// One text.
        first: String,
        /// The other.
        second: String,
    },
    /// An entry whose type is none of those known.
    #[error("token {id} has type {found}; known are 1 (normal) to 6 (byte)")]
    TokenType {
        /// The entry.
        id: usize,
        /// Its type.
        found: i32,
    },
    /// A byte entry that isn't written `<0xHH>`.
    #[error("token {id} `{piece}` is marked as a byte; bytes are written `<0x00>` to `<0xFF>`")]
    ByteToken {
        /// The entry.
        id: usize,
        /// Its text.
        piece: String,
    },
    /// A special id beyond the vocabulary.
    #[error("the {name} token is {found}; the vocabulary has {vocab_size} entries")]
    SpecialId {
        /// Which.
        name: &'static str,
        /// Its id.
        found: u32,
        /// Number of entries.
        vocab_size: usize,
    },
    /// A merge that isn't two pieces.
    #[error("merge {rank} is `{text}`; expected two pieces with a space between")]
    MergeText {
        /// Index in the list.
        rank: usize,
        /// The entry.
        text: String,
    },
    /// A merge of, or into, something that isn't in the vocabulary.
    #[error("merge {rank} (`{left}` + `{right}`) needs `{missing}`, which is not in the vocabulary")]
    MergePiece {
        /// Index in the list.
        rank: usize,
        /// Left piece.
        left: String,
        /// Right piece.
        right: String,
        /// The one that isn't there.
        missing: String,
    },
    /// A merge that would join byte or unknown tokens, which Gemma's never does.
    #[error("merge {rank} joins `{left}` and `{right}`; a byte or unknown token can't be part of a merge")]
    MergeOperand {
        /// Index in the list.
        rank: usize,
        /// Left piece.
        left: String,
        /// Right piece.
        right: String,
    },
    /// Neither merges nor scores to derive them from.
    #[error("the tokenizer has neither merges nor distinct scores, so it can't encode")]
    NoMerges,
}
