//! Languages as people write them, by name or by code, to the English names that prompts need.

/// The longest name of a language that is taken, in letters.
const MAX_NAME: usize = 40;

/// Codes of ISO 639-1.
const CODES: &[(&str, &str)] = &[
    ("af", "Afrikaans"),
    ("am", "Amharic"),
    ("ar", "Arabic"),
    ("az", "Azerbaijani"),
    ("be", "Belarusian"),
    ("bg", "Bulgarian"),
    ("bn", "Bengali"),
    ("bs", "Bosnian"),
    ("ca", "Catalan"),
    ("cs", "Czech"),
    ("cy", "Welsh"),
    ("da", "Danish"),
    ("de", "German"),
    ("el", "Greek"),
    ("en", "English"),
    ("es", "Spanish"),
    ("et", "Estonian"),
    ("eu", "Basque"),
    ("fa", "Persian"),
    ("fi", "Finnish"),
    ("fr", "French"),
    ("ga", "Irish"),
    ("gl", "Galician"),
    ("gu", "Gujarati"),
    ("ha", "Hausa"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("hr", "Croatian"),
    ("hu", "Hungarian"),
    ("hy", "Armenian"),
    ("id", "Indonesian"),
    ("ig", "Igbo"),
    ("is", "Icelandic"),
    ("it", "Italian"),
    ("ja", "Japanese"),
    ("jv", "Javanese"),
    ("ka", "Georgian"),
    ("kk", "Kazakh"),
    ("km", "Khmer"),
    ("kn", "Kannada"),
    ("ko", "Korean"),
    ("lo", "Lao"),
    ("lt", "Lithuanian"),
    ("lv", "Latvian"),
    ("mk", "Macedonian"),
    ("ml", "Malayalam"),
    ("mn", "Mongolian"),
    ("mr", "Marathi"),
    ("ms", "Malay"),
    ("my", "Burmese"),
    ("nb", "Norwegian"),
    ("ne", "Nepali"),
    ("nl", "Dutch"),
    ("no", "Norwegian"),
    ("pa", "Punjabi"),
    ("pl", "Polish"),
    ("ps", "Pashto"),
    ("pt", "Portuguese"),
    ("ro", "Romanian"),
    ("ru", "Russian"),
    ("si", "Sinhala"),
    ("sk", "Slovak"),
    ("sl", "Slovenian"),
    ("so", "Somali"),
    ("sq", "Albanian"),
    ("sr", "Serbian"),
    ("sv", "Swedish"),
    ("sw", "Swahili"),
    ("ta", "Tamil"),
    ("te", "Telugu"),
    ("th", "Thai"),
    ("tl", "Tagalog"),
    ("tr", "Turkish"),
    ("uk", "Ukrainian"),
    ("ur", "Urdu"),
    ("uz", "Uzbek"),
    ("vi", "Vietnamese"),
    ("yo", "Yoruba"),
    ("zh", "Chinese"),
    ("zu", "Zulu"),
];

/// The English name of a language that is given by name or code.
pub fn name(text: &str) -> Result<String, String> {
    let wrong =
        || format!("expected a language by its English name or two-letter code, such as German or de; found `{text}`");
    let text = text.trim();
    if let Some((_, name)) = CODES.iter().find(|(code, _)| code.eq_ignore_ascii_case(text)) {
        return Ok((*name).to_owned());
    }
    let allowed = |c: char| c.is_alphabetic() || " -'()".contains(c);
    let length = text.chars().count();
    if !(3..=MAX_NAME).contains(&length) || !text.chars().all(allowed) || !text.starts_with(char::is_alphabetic) {
        return Err(wrong());
    }
    let mut letters = text.chars();
    let first = letters.next().ok_or_else(wrong)?;
    Ok(first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_become_names() {
        for (text, expected) in
            [("de", "German"), ("EN", "English"), ("german", "German"), (" Swiss German ", "Swiss German")]
        {
            assert_eq!(name(text).as_deref(), Ok(expected));
        }
        for wrong in ["", "xx", "d", "German: ", "a\nb", "'; x", &"long".repeat(11)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn codes_are_sorted_and_stand_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
