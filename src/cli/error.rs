//! What a command says when it does not succeed: what failed, why, in what state the machine is, what to type.

use std::error::Error;
use std::fmt;

use super::exit::Exit;
use super::terminal::tell;

/// Why a command did not succeed.
#[derive(Debug)]
pub struct CommandError {
    /// The exit code.
    pub exit: Exit,
    /// What failed, as a fragment that reads after `kytx: `.
    pub what: String,
    /// Why, one cause a line.
    pub why: Vec<String>,
    /// In what state the machine is, as a sentence.
    pub state: String,
    /// What to type.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error with nothing but its code and what failed.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: Vec::new(), state: String::new(), hints: Vec::new() }
    }

    /// Nothing was changed, and the command must be given differently.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what).state("Nothing was changed.")
    }

    /// Nothing was changed, since something speaks against it.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what).state("Nothing was changed.")
    }

    /// Adds a cause and the causes of that.
    #[must_use]
    pub fn because(mut self, cause: &(dyn Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let line = cause.to_string();
            // An error that shows its source in its own text would be said twice.
            if self.why.last().is_none_or(|last| !last.contains(&line)) {
                self.why.push(line);
            }
            next = cause.source();
        }
        self
    }

    /// Says why in words.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// Says in what state the machine is.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = state.into();
        self
    }

    /// Says what to type.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Prints it.
    pub fn print(&self) {
        tell(&self.to_string());
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kytx: {}", self.what)?;
        for why in &self.why {
            write!(f, "\n  why:   {}", why.replace('\n', "\n         "))?;
        }
        if !self.state.is_empty() {
            write!(f, "\n  state: {}", self.state)?;
        }
        for hint in &self.hints {
            write!(f, "\n  type:  {hint}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        let mut chain = error.chain();
        let what = chain.next().map(ToString::to_string).unwrap_or_default();
        let mut made = Self::new(Exit::Fault, what);
        made.why = chain.map(ToString::to_string).collect();
        made
    }
}

impl Error for CommandError {}
