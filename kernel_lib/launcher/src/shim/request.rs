//! What `start` is asked for: containerd's message on stdin, and the annotations of the bundle.

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::Deserialize;

use crate::{wire, Result};

const GROUP_ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
const OPTIONS: &str = "runtimeoptions.v1.Options";

pub type Annotations = HashMap<String, String>;

/// What containerd says on stdin: `BootstrapParams` from 2.3 on, before that an `Any` of options, or nothing.
#[derive(Debug, Default, PartialEq)]
pub struct Params {
    pub knows_version_3: bool,
    pub ttrpc_address: String,
    pub grpc_address: String,
    pub socket_dir: String,
    /// The configuration file that the runtime's options name.
    pub config_path: String,
}

impl Params {
    /// The two messages are told apart by what they say: an `Any` reads as `BootstrapParams` too, only not as one with our id and namespace.
    pub fn read(data: &[u8], id: &str, namespace: &str) -> Result<Self> {
        let fields = wire::fields(data).ok_or("stdin is neither BootstrapParams nor options")?;
        let text = |number| wire::text(&fields, number);
        if (text(1), text(2)) != (id, namespace) {
            return Ok(Self { config_path: config_path(data), ..Self::default() });
        }
        // Extension { Any value = 1 }; the first is the runtime's options.
        let options = fields.iter().find(|field| field.0 == 8).and_then(|extension| wire::fields(extension.1));
        let options = options.and_then(|extension| extension.into_iter().find(|field| field.0 == 1));
        Ok(Self {
            knows_version_3: true,
            ttrpc_address: text(5).to_owned(),
            grpc_address: text(6).to_owned(),
            socket_dir: text(9).to_owned(),
            config_path: options.map(|any| config_path(any.1)).unwrap_or_default(),
        })
    }
}

/// `config_path` of the `runtimeoptions.v1.Options` that an `Any` holds.
fn config_path(any: &[u8]) -> String {
    let any = wire::fields(any).unwrap_or_default();
    if wire::text(&any, 1).rsplit('/').next() != Some(OPTIONS) {
        return String::new();
    }
    let options = any.iter().find(|field| field.0 == 2).and_then(|field| wire::fields(field.1)).unwrap_or_default();
    wire::text(&options, 2).to_owned()
}

/// What counts of a config.json.
#[derive(Default, Deserialize)]
pub struct Config {
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: Annotations,
    process: Option<IgnoredAny>,
}

impl Config {
    /// A sandbox of containerd's sandbox API comes without one.
    pub fn read(path: &str) -> Result<Self> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }

    /// Whether there is a container for a VMM that is started now.
    pub fn allows_ahead(&self) -> bool {
        self.process.is_some()
    }
}

/// Go writes an absent map as null.
fn or_default<'de, D: serde::Deserializer<'de>>(value: D) -> std::result::Result<Annotations, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// The name of the shim that serves this container: its pod's, or its own.
pub fn group<'a>(annotations: &'a Annotations, id: &'a str) -> &'a str {
    let named = GROUP_ANNOTATIONS.iter().filter_map(|name| annotations.get(*name)).find(|group| !group.is_empty());
    named.map_or(id, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_message;

    fn message(parts: &[(u64, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        parts.iter().for_each(|(number, value)| put_message(&mut data, *number, value));
        data
    }

    fn options() -> Vec<u8> {
        message(&[(1, OPTIONS.as_bytes()), (2, &message(&[(2, b"/c.yaml")]))])
    }

    #[test]
    fn options_before_2_3() {
        let params = Params::read(&options(), "a", "ns").unwrap();
        assert_eq!(params, Params { config_path: "/c.yaml".into(), ..Params::default() });
        assert_eq!(Params::read(b"", "a", "ns"), Ok(Params::default()));
        let of_runc = message(&[(1, b"containerd.runc.v1.Options"), (2, b"\x12\x01/")]);
        assert_eq!(Params::read(&of_runc, "a", "ns"), Ok(Params::default()));
        assert!(Params::read(b"\xff\xff", "a", "ns").is_err());
    }

    #[test]
    fn params_from_2_3_on() {
        let data = message(&[(1, b"a"), (2, b"ns"), (5, b"/t"), (6, b"/g"), (8, &message(&[(1, &options())])), (9, b"/s")]);
        let params = Params::read(&data, "a", "ns").unwrap();
        assert!(params.knows_version_3);
        assert_eq!((params.ttrpc_address.as_str(), params.grpc_address.as_str()), ("/t", "/g"));
        assert_eq!((params.socket_dir.as_str(), params.config_path.as_str()), ("/s", "/c.yaml"));
        assert!(!Params::read(&data, "b", "ns").unwrap().knows_version_3);
    }

    #[test]
    fn a_vmm_goes_ahead_of_a_container_that_takes_it() {
        for (text, expected) in [(r#"{"process": {"args": ["sh"]}, "annotations": null}"#, true), ("{}", false)] {
            assert_eq!(serde_json::from_str::<Config>(text).unwrap().allows_ahead(), expected);
        }
        assert!(!Config::read("/nonexistent/config.json").unwrap().allows_ahead());
    }

    #[test]
    fn containers_of_a_pod_have_one_group() {
        let [runc, cri] = GROUP_ANNOTATIONS;
        for (pairs, expected) in [
            (vec![], "me"),
            (vec![(cri, "pod")], "pod"),
            (vec![(runc, "g"), (cri, "pod")], "g"),
            (vec![("other", cri)], "me"),
            (vec![(runc, "")], "me"),
        ] {
            let annotations = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(group(&annotations, "me"), expected);
        }
    }
}
