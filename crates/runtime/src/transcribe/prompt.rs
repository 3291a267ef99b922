//! What the model is told to do with a sound, in the words it was trained with.
//!
//! Source: "Audio" under best practices in the model cards of Gemma 4. They name the language of the speech; where nobody did,
//! `its original language` stands there, as in the cards' own example.

/// What is made of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// The language that is spoken, by its English name, where it is known.
    pub language: Option<String>,
    /// The language to translate to, by its English name.
    pub translate_to: Option<String>,
}

impl Task {
    /// What to say beside the sound.
    pub(super) fn prompt(&self) -> String {
        let spoken = self.language.as_deref().unwrap_or("its original language");
        if let Some(target) = &self.translate_to {
            return format!(
                "Transcribe the following speech segment in {spoken}, then translate it into {target}.\n\
                 When formatting the answer, first output the transcription in {spoken}, then one newline, then output the string \
                 '{target}: ', then the translation in {target}."
            );
        }
        let asked = match &self.language {
            Some(language) => {
                format!("Transcribe the following speech segment in {language} into {language} text.\n\n")
            }
            None => "Transcribe the following speech segment in its original language. ".to_owned(),
        };
        format!(
            "{asked}Follow these specific instructions for formatting the answer:\n\
             * Only output the transcription, with no newlines.\n\
             * When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of three."
        )
    }
}

/// Which part of an answer a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What was said.
    Said(String),
    /// Its translation.
    Translated(String),
}

/// Tells the transcription from the translation in an answer that comes in pieces.
///
/// The translation begins behind the name of its language and a colon, at the beginning of a line. An answer without that is
/// a translation from its second line on, or altogether where it has one line.
#[derive(Debug)]
pub(super) struct Parts {
    /// `English:`, or nothing where there is nothing but a transcription.
    mark: Option<String>,
    /// What may be either.
    pending: String,
    translating: bool,
}

impl Parts {
    /// For the answers to a task.
    pub fn of(task: &Task) -> Self {
        let mark = task.translate_to.as_ref().map(|target| format!("{target}:"));
        Parts { mark, pending: String::new(), translating: false }
    }

    /// Takes more of the answer; what is certain now.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        let Some(mark) = &self.mark else { return vec![Part::Said(text.to_owned())] };
        if self.translating {
            return vec![Part::Translated(text.to_owned())];
        }
        self.pending.push_str(text);
        let begins_line = |at: &usize| {
            let before = self.pending[..*at].trim_end_matches(' ');
            before.is_empty() || before.ends_with('\n')
        };
        let found = self.pending.match_indices(mark.as_str()).map(|(at, _)| at).find(begins_line);
        let Some(at) = found else { return Vec::new() };
        self.translating = true;
        let translated = self.pending.split_off(at)[mark.len()..].to_owned();
        vec![Part::Said(std::mem::take(&mut self.pending)), Part::Translated(translated)]
    }

    /// Ends the answer.
    pub fn finish(self) -> Vec<Part> {
        if self.mark.is_none() || self.translating {
            return Vec::new();
        }
        match self.pending.trim_start().split_once('\n') {
            Some((said, translated)) => vec![Part::Said(said.to_owned()), Part::Translated(translated.to_owned())],
            None => vec![Part::Translated(self.pending)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(language: Option<&str>, translate_to: Option<&str>) -> Task {
        Task { language: language.map(str::to_owned), translate_to: translate_to.map(str::to_owned) }
    }

    /// As the model cards have them.
    #[test]
    fn prompts_are_those_of_the_model_cards() {
        assert_eq!(
            task(Some("English"), None).prompt(),
            "Transcribe the following speech segment in English into English text.\n\nFollow these specific instructions for \
             formatting the answer:\n* Only output the transcription, with no newlines.\n* When transcribing numbers, write the \
             digits, i.e. write 1.7 and not one point seven, and write 3 instead of three."
        );
        assert_eq!(
            task(None, None).prompt(),
            "Transcribe the following speech segment in its original language. Follow these specific instructions for \
             formatting the answer:\n* Only output the transcription, with no newlines.\n* When transcribing numbers, write the \
             digits, i.e. write 1.7 and not one point seven, and write 3 instead of three."
        );
        assert_eq!(
            task(Some("French"), Some("German")).prompt(),
            "Transcribe the following speech segment in French, then translate it into German.\nWhen formatting the answer, \
             first output the transcription in French, then one newline, then output the string 'German: ', then the \
             translation in German."
        );
    }

    #[track_caller]
    fn check(answer: &str, said: &str, translated: &str) {
        let letters: Vec<char> = answer.chars().collect();
        for size in 1..=letters.len() {
            let mut parts = Parts::of(&task(None, Some("German")));
            let mut found = Vec::new();
            for piece in letters.chunks(size) {
                found.extend(parts.push(&piece.iter().collect::<String>()));
            }
            found.extend(parts.finish());
            let mut texts = [String::new(), String::new()];
            for part in found {
                match part {
                    Part::Said(text) => texts[0] += &text,
                    Part::Translated(text) => texts[1] += &text,
                }
            }
            assert_eq!(texts.each_ref().map(|text| text.trim()), [said, translated], "pieces of {size}");
        }
    }

    #[test]
    fn a_translation_is_behind_its_language() {
        check("Good day.\nGerman: Guten Tag.", "Good day.", "Guten Tag.");
        check("He spoke German: well.\n German: Er sprach es gut.", "He spoke German: well.", "Er sprach es gut.");
        check("German: Guten Tag.", "", "Guten Tag.");
        check("Good day.\nGuten Tag.", "Good day.", "Guten Tag.");
        check("Guten Tag.", "", "Guten Tag.");
    }
}
