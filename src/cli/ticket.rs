//! The Kerberos ticket: looked for where the home needs one, and obtained from its own keytab before work begins.
//!
//! `check` and `plan` look only: a ticket goes to the user's cache. The commands that act get one by the principal and the
//! keytab of the home's configuration, the file's name being relative to `conf/` (reference 15.1).

use std::path::PathBuf;
use std::time::Duration;

use super::error::CommandError;
use super::inquiry::{inquire, on_path};
use super::terminal::tell;
use crate::effect::os::OsFs;
use crate::effect::shell::ending;
use crate::kyligence::home::{Home, read_through_links};
use crate::kyligence::preflight::procedure::Ticket;
use crate::kyligence::secrets::mask_text;
use crate::raw_path::RawPath;

/// How long `klist` may take, and `kinit`, which asks another host.
const KLIST_LIMIT: Duration = Duration::from_secs(30);
const KINIT_LIMIT: Duration = Duration::from_mins(2);

/// What a home says about its principal.
struct Kerberos {
    keytab: Option<PathBuf>,
    principal: Option<String>,
}

/// `None` where Kerberos is not enabled.
fn configured(home: &Home) -> Option<Kerberos> {
    let property = |name: &str| {
        ["kap.kerberos", "kylin.kerberos"]
            .iter()
            .find_map(|family| home.property(&format!("{family}.{name}")))
            .filter(|value| !value.is_empty())
    };
    if !property("enabled")?.eq_ignore_ascii_case("true") {
        return None;
    }
    Some(Kerberos {
        keytab: property("keytab").map(|name| home.path.join("conf").join(name)),
        principal: property("principal").map(str::to_owned),
    })
}

impl Kerberos {
    /// The command that gets a ticket, with words in place of what is not configured.
    fn command(&self, home: &Home) -> String {
        let keytab = self.keytab.clone().unwrap_or_else(|| home.path.join("conf/KEYTAB"));
        format!("kinit -kt {} {}", keytab.display(), self.principal.as_deref().unwrap_or("PRINCIPAL"))
    }

    /// Principal and keytab, if both are configured and the file is there and holds something.
    fn usable(&self) -> Option<(&str, &str)> {
        let keytab = self.keytab.as_deref()?;
        let content = read_through_links(&OsFs, keytab).ok().flatten()?;
        (!content.is_empty()).then_some((self.principal.as_deref()?, keytab.to_str()?))
    }
}

/// What is known of the ticket, where the home needs one. Nothing is changed.
pub fn seen(home: &Home) -> Option<Ticket> {
    let kerberos = configured(home)?;
    let from_keytab = kerberos.usable().is_some() && on_path("kinit").is_some();
    Some(Ticket { valid: is_valid(), kinit: kerberos.command(home), from_keytab })
}

fn is_valid() -> Result<bool, String> {
    match on_path("klist") {
        None => Err("`klist` is not on the PATH".to_owned()),
        Some(program) => match inquire(&program, &["-s"], KLIST_LIMIT) {
            Ok(ran) if ran.timed_out || ran.code.is_none() => Err(format!("`klist -s`: {}", ending(&ran))),
            Ok(ran) => Ok(ran.code == Some(0)),
            Err(error) => Err(format!("cannot run `klist`: {error}")),
        },
    }
}

/// Gets a ticket where one is needed, none is there, and the home's own keytab can give one. What remains missing is for
/// the preconditions to say.
pub fn obtain(home: &Home) -> Result<(), CommandError> {
    let Some(kerberos) = configured(home) else { return Ok(()) };
    let (Some((principal, keytab)), Some(kinit), Ok(false)) =
        (kerberos.usable(), on_path("kinit"), is_valid())
    else {
        return Ok(());
    };
    let refused = |why: String| {
        CommandError::refused(format!("no Kerberos ticket for `{principal}` could be obtained"))
            .why(why)
            .hint(format!("{}, until it works", kerberos.command(home)))
    };
    let ran = inquire(&kinit, &["-kt", keytab, principal], KINIT_LIMIT)
        .map_err(|error| refused(format!("cannot run `kinit`: {error}")))?;
    if ran.code != Some(0) {
        let said = ran.stderr.lines().last().unwrap_or_default();
        return Err(refused(format!("`kinit`: {} {}", ending(&ran), mask_text(said)).trim_end().to_owned()));
    }
    // A code is no ticket.
    if is_valid() != Ok(true) {
        return Err(refused("`kinit` ended with 0, and `klist -s` finds no valid ticket".to_owned()));
    }
    tell(&format!("A Kerberos ticket for `{principal}` was obtained by `{}`.", RawPath::from(keytab)));
    Ok(())
}

/// The same for a transaction that goes on: a ticket may have run out meanwhile. It never keeps a way back shut, as what
/// is to be done may not need one.
pub fn renew(home: &std::path::Path) {
    let Ok(home) = Home::recognise(&OsFs, home) else { return };
    if let Err(error) = obtain(&home) {
        tell(&error.to_string());
    }
}
