//! The command line containerd calls a shim with, in the way Go's `flag` package reads one.
//!
//! `SHIM [flags] start|delete`: flags come first, with one dash or two, values behind `=` or as the next word, booleans alone. Source:
//! containerd pkg/shim/shim.go, `parseFlags`; <https://pkg.go.dev/flag#hdr-Command_line_flag_syntax>.

use crate::Result;

/// What this call of the shim is about.
#[derive(Debug, Default, PartialEq)]
pub struct Call {
    pub namespace: String,
    pub id: String,
    pub address: String,
    pub ttrpc_address: String,
    pub publish_binary: String,
    pub bundle: String,
    pub debug: bool,
    pub version: bool,
    pub info: bool,
    pub action: String,
    /// What follows the action.
    pub rest: Vec<String>,
}

impl Call {
    /// The flags once more, as `shim/invocation.py` takes them.
    pub fn words(&self) -> Vec<String> {
        let flags = [
            ("-namespace", self.namespace.as_str()),
            ("-id", &self.id),
            ("-address", &self.address),
            ("-publish-binary", &self.publish_binary),
            ("-bundle", &self.bundle),
        ];
        let given = flags.iter().filter(|(_, value)| !value.is_empty());
        given.flat_map(|(flag, value)| [*flag, value]).chain(self.debug.then_some("-debug")).map(str::to_owned).collect()
    }
}

pub fn parse(words: impl Iterator<Item = String>, variable: impl Fn(&str) -> Option<String>) -> Result<Call> {
    let mut call = Call::default();
    let mut words = words.peekable();
    let mut ignored = String::new();
    while let Some(word) = words.next_if(|word| word.starts_with('-') && word != "-") {
        if word == "--" {
            break;
        }
        let word = word.trim_start_matches('-');
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
        let text = match name {
            "namespace" => &mut call.namespace,
            "id" => &mut call.id,
            "address" => &mut call.address,
            "publish-binary" => &mut call.publish_binary,
            "bundle" => &mut call.bundle,
            "socket" | "debug-socket" => &mut ignored,
            _ => {
                let switch = match name {
                    "debug" => &mut call.debug,
                    "v" | "version" => &mut call.version,
                    "info" => &mut call.info,
                    _ => return Err(format!("flag provided but not defined: -{name}")),
                };
                *switch = match value.as_deref() {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(other) => return Err(format!("invalid boolean value {other:?} for -{name}")),
                };
                continue;
            }
        };
        *text = value.or_else(|| words.next()).ok_or_else(|| format!("flag needs an argument: -{name}"))?;
    }
    for (field, name) in
        [(&mut call.namespace, "NAMESPACE"), (&mut call.address, "GRPC_ADDRESS"), (&mut call.ttrpc_address, "TTRPC_ADDRESS")]
    {
        if field.is_empty() {
            *field = variable(name).unwrap_or_default();
        }
    }
    call.action = words.next().unwrap_or_default();
    call.rest = words.collect();
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Call> {
        parse(line.iter().map(ToString::to_string), |name| (name == "TTRPC_ADDRESS").then(|| "/t".to_owned()))
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let call = parsed(&["-namespace", "ns", "--id=a", "-debug", "-address", "", "-publish-binary=/bin/c d", "start", "-v"]).unwrap();
        assert_eq!((call.namespace.as_str(), call.id.as_str(), call.address.as_str()), ("ns", "a", ""));
        assert_eq!((call.publish_binary.as_str(), call.ttrpc_address.as_str()), ("/bin/c d", "/t"));
        assert!(call.debug && !call.version);
        assert_eq!((call.action.as_str(), call.rest.as_slice()), ("start", ["-v".to_owned()].as_slice()));
        let call = parsed(&["-debug=false", "-v=true"]).unwrap();
        assert!(!call.debug && call.version);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for line in [&["-nonsense"], &["-id"], &["-debug=maybe"]] {
            assert!(parsed(line).is_err());
        }
    }

    #[test]
    fn what_is_passed_on_reads_the_same() {
        let call = parsed(&["-namespace", "ns", "-id", "a", "-debug", "serve", "x"]).unwrap();
        let words = call.words();
        let again: Vec<&str> = words.iter().map(String::as_str).chain(["serve", "x"]).collect();
        assert_eq!(parsed(&again).unwrap(), call);
    }
}
