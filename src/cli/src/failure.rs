//! What went wrong, as the terminal shows it: the message, the reason, what to do; and the exit code.

use std::fmt::Write;
use std::process::ExitCode;

use dayfly_client::Error;
use tonic::Code;

use crate::output::plain;

/// Every reason and what it means: made from the API's definition.
const ERRORS: &str = include_str!("../../../docs/reference/errors.md");

/// The command line does not say what it must.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) &'static str);

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const DENIED: u8 = 3;
const UNAVAILABLE: u8 = 4;

/// Tells standard error, and gives the exit code.
pub(crate) fn tell(error: &anyhow::Error) -> ExitCode {
    let mut text = format!("error: {}\n", plain(&format!("{error:#}")));
    let failed = error.downcast_ref::<Error>();
    if let Some(failed) = failed {
        if let Some(reason) = failed.reason() {
            let _ = writeln!(text, "reason: {}", plain(reason));
            if let Some(meaning) = meaning(reason) {
                let _ = writeln!(text, "meaning: {meaning}");
            }
        }
        if let Some(denial) = failed.metadata().get("denial") {
            let _ = writeln!(text, "denial: {} (an operator: dayfly explain --denial)", plain(denial));
        }
        if let Some(advice) = advice(failed) {
            let _ = writeln!(text, "to do: {}", plain(&advice));
        }
    }
    // Standard error may be closed; the exit code still says it.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    if let Some(refused) = error.downcast_ref::<crate::session::Refused>() {
        return ExitCode::from(match refused.code {
            401 | 403 => DENIED,
            429 | 500.. => UNAVAILABLE,
            _ => FAILED,
        });
    }
    let usage = error.is::<Usage>();
    ExitCode::from(if usage { USAGE } else { failed.map_or(FAILED, exit_code) })
}

fn exit_code(error: &Error) -> u8 {
    if let Error::Config(_) = error {
        return USAGE;
    }
    match error.code() {
        Some(Code::PermissionDenied | Code::Unauthenticated) => DENIED,
        Some(Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded) => UNAVAILABLE,
        _ => FAILED,
    }
}

/// What to do, where the broker's own message cannot know: it does not see the command line.
fn advice(error: &Error) -> Option<String> {
    let fact = |name: &str| error.metadata().get(name).map_or("", String::as_str);
    Some(match error.reason() {
        Some("TOKEN_AUDIENCE") => "give --token-file a token of the verb's audience: dayfly (issue, whoami), \
                                   dayfly-verifier (introspect), dayfly-operator (leases, owners, explain, revoke, revocations, events)"
            .to_owned(),
        Some("TOKEN_EXPIRED" | "TOKEN_REFUSED") => {
            "give --token-file the file that the kubelet refreshes, or a new token".to_owned()
        }
        Some("NOT_ALLOWED") if !fact("verb").is_empty() => {
            let name = Some(fact("name")).filter(|name| !name.is_empty());
            let name = name.map_or("without a name".to_owned(), |name| format!("named {name}"));
            format!("have RBAC grant you `{}` on `{}.dayfly.dev`, {name}", fact("verb"), fact("resource"))
        }
        Some(_) => format!("ask again in {:?}", error.rejected()?.retry_after?),
        None => match error {
            Error::Unreachable(_) => "check --server and --ca-file, and that the broker runs".to_owned(),
            Error::Deadline { .. } => "ask again, or raise --timeout".to_owned(),
            Error::Token(_) => "give --token-file the file that the kubelet projects".to_owned(),
            _ => return None,
        },
    })
}

/// What the reference says of a reason: the last cell of its row.
fn meaning(reason: &str) -> Option<&'static str> {
    let mut rows = ERRORS.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = rows.find_map(|row| row.strip_prefix(reason)?.strip_prefix("` | "))?;
    Some(row.split_once(" | ")?.1.trim_end_matches(" |"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_means_what_the_reference_says() {
        let said = "A scope asked for is not in the Grant. Nothing is silently reduced.";
        assert_eq!(meaning("SCOPE_NOT_GRANTED"), Some(said));
        assert_eq!((meaning("SCOPE"), meaning("NO_SUCH_REASON")), (None, None));
    }
}
