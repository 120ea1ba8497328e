//! Text as HTML.

use std::fmt::{self, Display, Write};

/// A text in which nothing is markup, also inside quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<T>(pub(super) T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Replaces what could be markup on the way.
struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                c if c.is_control() && c != '\n' => self.0.write_char(' ')?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// At most so many characters of a text, with a sign where there is more.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        let told = Text("<img src=x onerror='a'> & \"b\"\u{7}").to_string();
        assert_eq!(told, "&lt;img src=x onerror=&#39;a&#39;&gt; &amp; &quot;b&quot; ");
        assert_eq!((short("añb", 2), short("añb", 3)), ("añ…".to_owned(), "añb".to_owned()));
    }
}
