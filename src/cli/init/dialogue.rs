//! Questions and answers: each is repeated until its answer can be used.

use std::io::{BufRead, Write};

use secrecy::SecretString;

use super::InitError;

/// Reads a line that is not shown.
type Hidden<'a> = Box<dyn FnMut() -> std::io::Result<String> + 'a>;

/// Who answers what the arguments leave open.
pub(super) enum Respondent<'a> {
    /// A person.
    Person(Dialogue<'a>),
    /// Nobody: defaults count, and what has none has to be in the arguments.
    Nobody,
}

/// Where a person is asked and answers.
pub(super) struct Dialogue<'a> {
    input: Box<dyn BufRead + 'a>,
    output: Box<dyn Write + 'a>,
    hidden: Hidden<'a>,
}

/// One question.
pub(super) struct Question {
    /// What is asked for.
    pub(super) what: &'static str,
    /// What an empty answer stands for; none where there has to be one.
    pub(super) default: Option<&'static str>,
    /// The argument that answers it.
    pub(super) flag: &'static str,
}

impl Dialogue<'static> {
    /// At the terminal of this process.
    pub(super) fn at_terminal() -> Self {
        Self {
            input: Box::new(std::io::stdin().lock()),
            output: Box::new(std::io::stderr()),
            hidden: Box::new(rpassword::read_password),
        }
    }
}

#[cfg(test)]
impl<'a> Dialogue<'a> {
    pub(super) fn new(input: impl BufRead + 'a, output: impl Write + 'a, hidden: Hidden<'a>) -> Self {
        Self { input: Box::new(input), output: Box::new(output), hidden }
    }
}

impl Dialogue<'_> {
    fn line(&mut self, question: &Question) -> std::io::Result<Option<String>> {
        match question.default {
            Some("") | None => write!(self.output, "{}: ", question.what)?,
            Some(default) => write!(self.output, "{} [{default}]: ", question.what)?,
        }
        self.output.flush()?;
        let mut line = String::new();
        let is_end = self.input.read_line(&mut line)? == 0;
        Ok((!is_end).then(|| line.trim().to_owned()))
    }

    fn hidden_line(&mut self, what: &str) -> std::io::Result<SecretString> {
        write!(self.output, "{what} (not shown; empty: put it there later): ")?;
        self.output.flush()?;
        Ok(SecretString::from((self.hidden)()?.trim().to_owned()))
    }
}

impl Respondent<'_> {
    /// The answer of the arguments, else that of the person.
    pub(super) fn answer<T>(
        &mut self,
        given: Option<T>,
        question: &Question,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, InitError> {
        let missing = || InitError::Missing { flag: question.flag, what: question.what };
        if let Some(given) = given {
            return Ok(given);
        }
        loop {
            let text = match self {
                Self::Nobody => question.default.ok_or_else(missing)?.to_owned(),
                Self::Person(dialogue) => {
                    dialogue.line(question).map_err(InitError::Ask)?.ok_or(InitError::NoAnswer)?
                }
            };
            let text = if text.is_empty() { question.default.unwrap_or_default() } else { &text };
            match (parse(text), &mut *self) {
                (Ok(answer), _) => return Ok(answer),
                (Err(_), Self::Nobody) => return Err(missing()),
                (Err(why), Self::Person(dialogue)) => {
                    writeln!(dialogue.output, "  {why}").map_err(InitError::Ask)?;
                }
            }
        }
    }

    /// A secret as a person types it; none where there is nobody, or nothing is typed.
    pub(super) fn secret(&mut self, what: &str) -> Result<SecretString, InitError> {
        match self {
            Self::Nobody => Ok(SecretString::default()),
            Self::Person(dialogue) => dialogue.hidden_line(what).map_err(InitError::Ask),
        }
    }
}

/// Tells something beside the answer of a command.
pub(super) fn tell(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{text}")
}
