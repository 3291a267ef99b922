//! A conversation with a model: messages in, events out.
//!
//! A session owns the model and the tokens its cache holds; one thread drives it. Each answer starts from the
//! whole conversation, and the part of the prompt that the cache already holds is not computed again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carat_chat::message::{Conversation, Message};
use carat_chat::tokenizer::Tokenizer;
use carat_model::input;
use carat_model::{Decoder, LoadReport, LogitRows, MemoryPlan, Piece, Step};
use carat_tensor::TokenId;
use carat_weights::MappedFile;

use crate::answer::Reader;
use crate::device::Device;
use crate::encoders::{Encoders, SoftTokens};
use crate::loading::{self, Loaded};
use crate::loop_guard::LoopGuard;
use crate::media::Ears;
use crate::prompt::{PromptRows, Row, common};
use crate::sampler::Sampler;
use crate::sequence::{FinishReason, Sequence};
use crate::stop::StopStrings;
use crate::thinking::{ThinkingBudget, ThoughtTokens};
use crate::tiles::Tiles;
use crate::video::SoundTrack;
use crate::{ChatFormat, Error, GenerationDefaults, LoadOptions, Medium, ModelFiles, ModelSource, SamplingOptions};

pub use crate::answer::{Event, TokenInfo};

/// Whether answers that repeat themselves without end are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looping {
    /// They are stopped.
    Stopped,
    /// They go on.
    Allowed,
}

/// How an answer is made.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<TokenId>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Most tokens of the answer, thoughts included; `None` is what the context leaves.
    pub max_tokens: Option<usize>,
    /// Most tokens of thought, after which the answer must come.
    pub think_budget: Option<usize>,
    /// What happens to endless repetition.
    pub looping: Looping,
}

impl GenerateOptions {
    /// The model's own way.
    pub fn from_defaults(defaults: &GenerationDefaults) -> Self {
        GenerateOptions {
            sampling: defaults.sampling.clone(),
            stop_tokens: defaults.stop_tokens.clone(),
            stop: Vec::new(),
            max_tokens: None,
            think_budget: None,
            looping: Looping::Stopped,
        }
    }

    /// The likeliest answer of up to `max_tokens`, without a thought: one that nobody asked for is closed where it begins.
    pub fn plain(defaults: &GenerationDefaults, max_tokens: usize) -> Self {
        let suppress = defaults.sampling.suppress.clone();
        GenerateOptions {
            sampling: SamplingOptions { suppress, ..SamplingOptions::default() },
            max_tokens: Some(max_tokens),
            think_budget: Some(0),
            ..GenerateOptions::from_defaults(defaults)
        }
    }
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// As it goes into the conversation.
    pub message: Message,
    /// Why it ended.
    pub finish: FinishReason,
    /// The stop string that ended it, if one did.
    pub stop_string: Option<String>,
    /// Tokens counted.
    pub usage: Usage,
    /// The seed that would give it again.
    pub seed: u64,
    /// Time until the first token could be drawn.
    pub prompt_time: Duration,
    /// Time from there to the end.
    pub answer_time: Duration,
}

/// Tokens of a prompt and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: usize,
    /// Of the prompt, those that the cache already held.
    pub cached: usize,
    /// Of the answer, thoughts and the ending token included.
    pub answer: usize,
    /// Of the answer, those of thoughts.
    pub thought: usize,
}

/// A model ready to answer.
pub struct Session {
    decoder: Decoder<Device>,
    tokenizer: Arc<Tokenizer>,
    format: ChatFormat,
    defaults: GenerationDefaults,
    report: LoadReport,
    tiles: Arc<Tiles>,
    /// What the weights lie in.
    files: Vec<Arc<MappedFile>>,
    /// Eyes and ears.
    encoders: Encoders,
    /// What is in the decoder's cache.
    held: Vec<Row>,
}

impl Session {
    /// Loads a model. `announce` sees what memory it will take before it is taken.
    ///
    /// # Errors
    /// If the files are no model that runs here, bring no tokenizer, or don't fit in memory.
    pub fn load(
        source: &ModelSource,
        options: &LoadOptions,
        announce: &mut dyn FnMut(&MemoryPlan),
    ) -> Result<Self, Error> {
        Session::of(ModelFiles::open(source)?, options, announce)
    }

    /// Loads the model in `files`, as [`Session::load`].
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn of(
        mut files: ModelFiles,
        options: &LoadOptions,
        announce: &mut dyn FnMut(&MemoryPlan),
    ) -> Result<Self, Error> {
        let tokenizer = Arc::new(files.tokenizer()?);
        files.check_vocabulary(&tokenizer)?;
        let format = ChatFormat::of(&files)?;
        let defaults = files.generation(&tokenizer)?;
        let Loaded { decoder, report, tiles } = loading::load(&mut files, options, announce)?;
        let mapped = files.checkpoint().tensors().files().to_vec();
        let encoders = Encoders::new(files, options, &decoder);
        let held = Vec::with_capacity(decoder.options().ctx);
        Ok(Session { decoder, tokenizer, format, defaults, report, tiles, files: mapped, encoders, held })
    }

    /// The model's own way of generating.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder<Device> {
        &self.decoder
    }

    /// What loading found beside the model.
    pub fn load_report(&self) -> &LoadReport {
        &self.report
    }

    /// The interleaved weights, from which products read.
    pub fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// Encodes a medium before a conversation shows it; how many soft tokens it takes in a prompt, all frames of a video together.
    ///
    /// # Errors
    /// If the model can't take it, no room was planned for its kind, or it can't be decoded.
    pub fn soft_tokens(&mut self, medium: &Medium) -> Result<usize, Error> {
        self.check_files()?;
        let made = self.encoders.encode(self.decoder.backend_mut(), medium)?;
        Ok(made.iter().map(|soft| soft.n).sum())
    }

    /// What the model takes of a video's sound.
    ///
    /// # Errors
    /// If the files of its encoders can't be read.
    pub fn sound_track(&mut self) -> Result<SoundTrack, Error> {
        Ok(match self.encoders.ears()? {
            Ears::Hears => SoundTrack::Heard,
            Ears::Deaf => SoundTrack::Left,
        })
    }

    /// Answers a conversation without media, as [`Session::generate_with`].
    ///
    /// # Errors
    /// As there.
    pub fn generate(
        &mut self,
        conversation: &Conversation,
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        self.generate_with(conversation, &[], options, on_event)
    }

    /// Answers a conversation whose media parts stand for `media`, in order. `on_event` sees the answer as it comes, is called at least once per token and may
    /// end it by breaking.
    ///
    /// # Errors
    /// If an option is impossible, the media are not those of the conversation's parts, can't be decoded or are of a kind
    /// that the model can't take, the prompt doesn't fit in the context, the model computes what are no numbers, or
    /// its files have changed since they were opened. What was said so far in an answer that fails is lost; the session
    /// can go on, unless its files have changed.
    pub fn generate_with(
        &mut self,
        conversation: &Conversation,
        media: &[Medium],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        let started = Instant::now();
        self.check_files()?;
        let sampler = Sampler::new(options.sampling.clone(), self.decoder.config().vocab_size)?;
        let stop = StopStrings::new(&options.stop)?;
        let (ids, prompt) = self.prompt(conversation, media)?;
        let rows = prompt.rows();
        let ctx = self.decoder.options().ctx;
        if rows.is_empty() || rows.len() >= ctx {
            return Err(Error::PromptLength { found: rows.len(), context: ctx });
        }
        let mut sequence = self.sequence(sampler, &ids, options);
        let mut reader = Reader::new(&self.tokenizer, &ids, conversation, stop);
        let seed = sequence.sampler.seed();

        let cached = self.reuse(&rows);
        let (all, fresh) = (prompt.pieces(), &rows[cached..]);
        let pieces: Vec<Piece<'_>> = input::parts(&all, cached..rows.len()).collect();
        // The last pass is left to the first turn of the loop, which wants its logits.
        let mut ends = self.decoder.pass_ends(&pieces);
        ends.pop();
        let mut usage = Usage { prompt: rows.len(), cached, ..Usage::default() };
        let mut finish = self.prefill(&pieces, fresh, &ends, on_event)?;
        let body = ends.last().copied().unwrap_or(0);
        let step: Vec<Piece<'_>> = input::parts(&pieces, body..fresh.len()).collect();
        let mut step_rows = fresh[body..].to_vec();
        let mut last = [TokenId(0)];
        let mut prompt_time = None;
        while finish.is_none() {
            if sequence.generated() >= sequence.max_tokens {
                finish = Some(FinishReason::Length);
                break;
            }
            if self.held.len() + step_rows.len() > ctx {
                finish = Some(FinishReason::Context);
                break;
            }
            let one = [Piece::Tokens(&last)];
            let pieces = if prompt_time.is_none() { step.as_slice() } else { &one };
            let logits = self.decoder.forward(Step { pieces, logits: LogitRows::Last })?;
            self.held.extend_from_slice(&step_rows);
            prompt_time.get_or_insert_with(|| started.elapsed());
            let drawn = sequence.draw(logits)?;
            finish = sequence.accept(drawn.token, self.tokenizer.bytes(drawn.token));
            step_rows.clear();
            step_rows.push(Row::Token(drawn.token));
            last = [drawn.token];
            if reader.push(&self.tokenizer, drawn, on_event).is_break() {
                finish = Some(FinishReason::Cancelled);
            } else if reader.ended() {
                finish = Some(FinishReason::Stop);
            }
        }
        usage.answer = sequence.generated();
        usage.thought = sequence.thinking.as_ref().map_or(0, ThinkingBudget::spent);
        let finish = finish.unwrap_or(FinishReason::Stop);
        let (message, stop_string) = reader.finish(on_event);
        let stops = stop_string.is_some() && finish != FinishReason::Cancelled;
        let finish = if stops { FinishReason::Stop } else { finish };
        let called = finish == FinishReason::Stop && !message.tool_calls.is_empty();
        let prompt_time = prompt_time.unwrap_or_else(|| started.elapsed());
        Ok(Answer {
            message,
            finish: if called { FinishReason::ToolCalls } else { finish },
            stop_string,
            usage,
            seed,
            prompt_time,
            answer_time: started.elapsed() - prompt_time,
        })
    }

    /// Refuses files that have changed since they were opened.
    fn check_files(&self) -> Result<(), Error> {
        self.files.iter().chain(self.tiles.file()).try_for_each(|file| file.check())?;
        self.encoders.check_files()
    }

    fn sequence(&self, mut sampler: Sampler, prompt: &[TokenId], options: &GenerateOptions) -> Sequence {
        prompt.iter().for_each(|&token| sampler.observe_prompt(token));
        let special = self.tokenizer.special();
        let thinking = special.channel_open.zip(special.channel_close).map(|(open, close)| {
            let newline = self.tokenizer.encode("\n");
            let tokens = ThoughtTokens { open, close, call: special.tool_call_open, newline };
            let mut budget = ThinkingBudget::new(tokens, options.think_budget);
            let tail = prompt.iter().rposition(|&t| t == open).unwrap_or(prompt.len());
            budget.observe_prompt(prompt[tail..].iter().map(|&t| (t, self.tokenizer.bytes(t))));
            budget
        });
        let guard = (options.looping == Looping::Stopped).then(LoopGuard::default);
        let max_tokens = options.max_tokens.unwrap_or(usize::MAX);
        Sequence::new(sampler, thinking, guard, options.stop_tokens.clone(), max_tokens)
    }

    /// Keeps of the cache what is the beginning of `prompt`; how many tokens that are. The last token is left to
    /// be computed, since its logits are needed.
    fn reuse(&mut self, prompt: &[Row]) -> usize {
        let common = common(&self.held, prompt);
        let kept = if self.decoder.truncate(common) {
            common
        } else {
            // The windows of sliding layers no longer reach back that far.
            self.decoder.reset();
            0
        };
        self.held.truncate(kept);
        kept
    }

    /// The ids of a conversation's prompt, one placeholder for each medium or frame, and its rows.
    fn prompt(&mut self, conversation: &Conversation, media: &[Medium]) -> Result<(Vec<TokenId>, PromptRows), Error> {
        media.iter().try_for_each(|medium| self.encoders.check(medium))?;
        let ears = if media.is_empty() { Ears::Deaf } else { self.encoders.ears()? };
        let parts: Vec<_> = media.iter().map(|medium| medium.parts(ears)).collect();
        let texts: Vec<_> = media.iter().zip(&parts).map(|(medium, parts)| medium.text(parts)).collect();
        // Whoever asks for an answer wants the place for one.
        let conversation = Conversation { add_generation_prompt: true, ..conversation.clone() };
        let prompt = self.format.prompt(&conversation)?.with_media(&texts)?;
        let ids = prompt.encode(&self.tokenizer);
        let (mut soft, ctx) = (Vec::new(), self.decoder.options().ctx);
        // Each has a placeholder among them.
        let mut least = ids.len();
        for medium in media {
            soft.extend(self.encoders.encode(self.decoder.backend_mut(), medium)?);
            least = ids.len() + soft.iter().map(|soft: &Arc<SoftTokens>| soft.n - 1).sum::<usize>();
            if least >= ctx {
                break;
            }
        }
        if least >= ctx {
            return Err(Error::PromptLength { found: least, context: ctx });
        }
        let rows = PromptRows::new(&self.tokenizer, &ids, soft);
        Ok((ids, rows))
    }

    /// Computes the passes that end at `ends` of what is new of a prompt, `rows` as `pieces`.
    fn prefill(
        &mut self,
        pieces: &[Piece<'_>],
        rows: &[Row],
        ends: &[usize],
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, Error> {
        let (mut start, total) = (0, self.held.len() + rows.len());
        for &end in ends {
            let pass: Vec<Piece<'_>> = input::parts(pieces, start..end).collect();
            self.decoder.forward(Step { pieces: &pass, logits: LogitRows::None })?;
            self.held.extend_from_slice(&rows[start..end]);
            start = end;
            if on_event(Event::Prompt { done: self.held.len(), total }).is_break() {
                return Ok(Some(FinishReason::Cancelled));
            }
        }
        Ok(None)
    }
}
