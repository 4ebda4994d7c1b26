//! What holds when files, variables and flags meet, and what is refused.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use super::*;

/// A directory with configuration files, and what would be set around them.
struct Desk {
    dir: tempfile::TempDir,
    environment: BTreeMap<String, String>,
    overrides: Overrides,
}

impl Desk {
    fn new(main: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("intentd.toml");
        fs::write(&file, main).unwrap();
        let overrides = Overrides { file: Some(file), ..Overrides::default() };
        Desk { dir, environment: BTreeMap::new(), overrides }
    }

    fn drop_in(self, name: &str, text: &str) -> Self {
        fs::create_dir_all(self.dir.path().join("conf.d")).unwrap();
        fs::write(self.dir.path().join("conf.d").join(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, key: &'static str, value: &str) -> Self {
        self.overrides.values.push((key, value.to_owned()));
        self
    }

    fn load(&self) -> Result<Loaded, Error> {
        load(&self.overrides, &self.environment, true)
    }

    /// The message of the refusal, with the directory left out.
    #[track_caller]
    fn refusal(&self) -> String {
        let error = self.load().expect_err("this configuration is refused");
        error.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }

    /// The line of `config show --origin` for a key, with the directory left out.
    fn shown(&self, key: &str) -> String {
        let shown = self.load().unwrap().show(true);
        let line = shown.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

#[track_caller]
fn refused(main: &str, message: &str) {
    assert_eq!(Desk::new(main).refusal(), message, "{main}");
}

#[test]
fn every_default_is_toml_and_has_its_form() {
    let sink_keys = SINK_KEYS.iter().flat_map(|(_, keys)| *keys);
    for key in KEYS.iter().chain(sink_keys).filter(|key| !key.default.is_empty()) {
        let shown = layer::default_of(key).to_string();
        assert_eq!(shown, key.default, "{} is written as it would be shown", key.path);
    }
}

#[test]
fn the_later_layer_wins_and_the_origin_says_which_it_was() {
    let desk = Desk::new("");
    assert_eq!(desk.shown("drain"), "drain = \"25s\"  # default");
    let desk = Desk::new("# first\ndrain = \"1s\"\n");
    assert_eq!(desk.shown("drain"), "drain = \"1s\"  # intentd.toml:2");
    let desk = desk.drop_in("20.toml", "drain = \"3s\"").drop_in("10.toml", "drain = \"2s\"");
    assert_eq!(desk.shown("drain"), "drain = \"3s\"  # conf.d/20.toml:1");
    let desk = desk.drop_in(".30.toml", "drain = \"9s\"").drop_in("30.toml~", "not TOML");
    assert_eq!(desk.shown("drain"), "drain = \"3s\"  # conf.d/20.toml:1");
    let desk = desk.variable("INTENTD_DRAIN", "4s");
    assert_eq!(desk.shown("drain"), "drain = \"4s\"  # $INTENTD_DRAIN");
    let desk = Desk::new("spool = \"/a\"").variable("INTENTD_SPOOL", "/b").flag("spool", "/c");
    assert_eq!(desk.shown("spool"), "spool = \"/c\"  # --spool");
    assert_eq!(desk.shown("inbox"), "inbox = \"/c/inbox\"  # default");
}

#[test]
fn every_key_can_be_set_by_its_variable_except_tables() {
    let examples = |form| match form {
        Form::Text => "some-text",
        Form::Path => "/some/path",
        Form::Flag => "true",
        Form::List => "package",
        Form::Count { .. } => "7",
        Form::Time { .. } => "2s",
        Form::Size { .. } => "2KiB",
        Form::Choice(choices) => choices[0],
        Form::Level => "warn",
        Form::Bounds => "anything",
    };
    for key in KEYS {
        // Their values are looked at as well: a pattern has a star, a template exists.
        let value = match key.path {
            "intake.patterns" => "*.intent.json",
            "intake.owners" => "1000",
            "compose.deployment_template" => "/dev/null",
            "breaker.pause_max" => "1m",
            _ => examples(key.form),
        };
        let loaded = Desk::new("").variable(&key.variable(), value).load();
        match key.form {
            Form::Bounds => assert!(loaded.is_err()),
            _ => {
                let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", key.path));
                assert_eq!(loaded.warnings, [] as [&str; 0]);
                assert!(loaded.show(true).contains(&format!("# ${}\n", key.variable())));
            }
        }
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_what_was_meant() {
    refused("\nspol = 1", "intentd.toml:2: there is no key `spol`; did you mean `spool`?");
    refused(
        "[watch]\n\nrescn = \"1s\"",
        "intentd.toml:3: there is no key `watch.rescn`; did you mean `watch.rescan`?",
    );
    refused(
        "rescan = \"1s\"",
        "intentd.toml:1: there is no key `rescan`; did you mean `watch.rescan`?",
    );
    refused(
        "[wacth]\npoll = true",
        "intentd.toml:1: there is no key `wacth`; did you mean `watch`?",
    );
    refused("colour = true", "intentd.toml:1: there is no key `colour`");
    refused(
        "[sinks.exec]\ntimout = \"3s\"",
        "intentd.toml:2: there is no key `sinks.exec.timout`; did you mean `sinks.exec.timeout`?",
    );
    let drop_in = Desk::new("").drop_in("a.toml", "\n\nsettle.quite = \"1s\"");
    assert_eq!(
        drop_in.refusal(),
        "conf.d/a.toml:3: there is no key `settle.quite`; did you mean `settle.quiet`?"
    );
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_is_expected() {
    let time = "has to be a time with a unit, from 10ms to 1m";
    for value in ["\"9ms\"", "\"2m\"", "\"250\"", "250", "true"] {
        let file = format!("[settle]\nquiet = {value}");
        refused(&file, &format!("intentd.toml:2: `settle.quiet` {time}"));
    }
    refused(
        "intake.size_bytes_max = \"1GB\"",
        "intentd.toml:1: `intake.size_bytes_max` has to be a size with a unit, from 128B to 8MiB",
    );
    refused("settle = 3", "intentd.toml:1: `settle` has to be a table");
    refused("sinks = 3", "intentd.toml:1: `sinks` has to be a table");
    refused("sinks.exec = 3", "intentd.toml:1: `sinks.exec` has to be a table");
    refused("spool = \"\"", "intentd.toml:1: `spool` has to be a path");
    refused("sink = []", "intentd.toml:1: `sink` has to be at least one name");
    refused("sink = [1]", "intentd.toml:1: `sink` has to be a list of strings");
    let level = "error, warn, info, debug, trace, off, or a filter such as intentd=debug";
    refused("log_level = \"inof\"", &format!("intentd.toml:1: `log_level` has to be {level}"));
    let bounds = "has to be a list of tables with `namespace`, `target`, `min` and `max`";
    refused(
        "[[policy.bounds]]\nmin = 0",
        &format!(
            "intentd.toml:1: `policy.bounds` {bounds}; `min` has to be a whole number from 1 to 100"
        ),
    );
    refused(
        "[[policy.bounds]]\nmin = 3\nmax = 2",
        &format!("intentd.toml:1: `policy.bounds` {bounds}, `min` not above `max`"),
    );
    refused("retry.first = \"1m\"", "intentd.toml:1: `retry.first` must not be above `retry.max`");
    refused("retry.max = \"1ms\"", "intentd.toml:1: `retry.first` must not be above `retry.max`");
    refused(
        "breaker.pause = \"1m\"",
        "intentd.toml:1: `breaker.pause` must not be above `breaker.pause_max`",
    );
    refused(
        "breaker.failures = 101",
        "intentd.toml:1: `breaker.failures` has to be a whole number from 1 to 100",
    );
    refused(
        "[sinks.package]\nrate = 0",
        "intentd.toml:2: `sinks.package.rate` has to be a whole number from 1 to 10000",
    );
    refused(
        "[policy]\nreplicas_max = 2\nreplicas_min = 3",
        "intentd.toml:3: `policy.replicas_min` must not be above `policy.replicas_max`",
    );
    refused("intake.owners = [\"no such\"]", "intentd.toml:1: there is no user `no such`");
}

#[test]
fn patterns_are_refused_before_anything_starts() {
    for key in ["policy.allowed_namespaces", "policy.denied_targets", "intake.patterns"] {
        let message = Desk::new(&format!("{key} = [\"Bad/One\"]")).refusal();
        let head = format!("intentd.toml:1: `{key}` has to be a list of patterns: ");
        assert!(message.starts_with(&head), "{message}");
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let message = Desk::new("spool = \"/a\"\ndrain = = 3").refusal();
    assert!(message.starts_with("intentd.toml:2: not TOML: "), "{message}");
    let message = Desk::new("drain = \"1s\"\ndrain = \"2s\"").refusal();
    assert!(message.starts_with("intentd.toml:2: not TOML: duplicate key"), "{message}");
}

#[test]
fn a_wrong_variable_or_flag_is_named_in_the_refusal() {
    let desk = Desk::new("").variable("INTENTD_SETTLE__QUIET", "250");
    let expected = "`settle.quiet` has to be a time with a unit, from 10ms to 1m";
    assert_eq!(desk.refusal(), format!("$INTENTD_SETTLE__QUIET: {expected}"));
    let desk = Desk::new("").variable("INTENTD_SPOOL", "");
    assert_eq!(desk.refusal(), "$INTENTD_SPOOL: `spool` has to be a path");
    let desk = Desk::new("").flag("log_format", "xml");
    let expected = "`log_format` has to be one of auto, text, json, journald";
    assert_eq!(desk.refusal(), format!("--log-format: {expected}"));
    let desk = Desk::new("").variable("INTENTD_POLICY__BOUNDS", "3");
    let expected = "has to be set in a file, where it can be a list of tables";
    assert_eq!(desk.refusal(), format!("$INTENTD_POLICY__BOUNDS: `policy.bounds` {expected}"));
}

#[test]
fn an_unknown_variable_is_only_warned_of() {
    let desk = Desk::new("")
        .variable("INTENTD_SETTLE__QUITE", "1s")
        .variable("INTENTD_CONFIG", "/elsewhere")
        .variable("INTENTD_ZZZ", "1");
    assert_eq!(
        desk.load().unwrap().warnings,
        [
            "nobody reads the variable `INTENTD_SETTLE__QUITE`; did you mean \
             `INTENTD_SETTLE__QUIET`?",
            "nobody reads the variable `INTENTD_ZZZ`",
        ]
    );
}

#[test]
fn a_variable_that_is_not_utf8_is_refused_if_it_matters() {
    let odd = || OsString::from_vec(vec![b'/', 0xff]);
    let ours = [(OsString::from("INTENTD_SPOOL"), odd())];
    let error = environment(ours.into_iter()).unwrap_err();
    assert_eq!(error.to_string(), "the variable `INTENTD_SPOOL` has to be in UTF-8");
    let others = [(OsString::from("LESS"), odd()), (OsString::from("HOME"), "/h".into())];
    let kept = environment(others.into_iter()).unwrap();
    assert_eq!(kept, BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]));
}

#[test]
fn a_file_that_was_named_has_to_exist() {
    let mut desk = Desk::new("");
    desk.overrides.file = Some(desk.dir.path().join("missing.toml"));
    assert_eq!(desk.refusal(), "read configuration `missing.toml`");
    desk.overrides.file = None;
    let missing = desk.dir.path().join("missing.toml").display().to_string();
    assert!(desk.variable("INTENTD_CONFIG", &missing).load().is_err());
}

#[test]
fn the_places_are_those_of_a_service_or_of_a_user() {
    let places = |variables: &[(&str, &str)], is_root| {
        let pairs = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let places = Places::of(&pairs.collect(), is_root);
        let file = places.config.clone().map(|path| path.display().to_string());
        let mut layers = Layers::defaults();
        places.fill(&mut layers).map(|()| {
            [layers.text("spool"), layers.text("state_dir"), file].map(Option::unwrap_or_default)
        })
    };
    let service = ["/var/spool/intentd", "/var/lib/intentd", "/etc/intentd/intentd.toml"];
    assert_eq!(places(&[("HOME", "/root")], true).unwrap(), service);
    let given = [("HOME", "/h"), ("STATE_DIRECTORY", "/var/lib/intentd:/other")];
    assert_eq!(places(&given, false).unwrap(), service);
    assert_eq!(
        places(&[("HOME", "/h"), ("XDG_STATE_HOME", "relative")], false).unwrap(),
        [
            "/h/.local/state/intentd/spool",
            "/h/.local/state/intentd",
            "/h/.config/intentd/intentd.toml"
        ]
    );
    assert_eq!(
        places(&[("XDG_STATE_HOME", "/s"), ("XDG_CONFIG_HOME", "/c")], false).unwrap(),
        ["/s/intentd/spool", "/s/intentd", "/c/intentd/intentd.toml"]
    );
    assert!(matches!(places(&[], false), Err(Error::NoHome)));
}

#[test]
fn relative_paths_are_meant_from_the_file_that_has_them() {
    let desk = Desk::new("spool = \"here\"").drop_in("a.toml", "packages = \"there\"");
    assert_eq!(desk.shown("spool"), format!("spool = \"{}\"  # intentd.toml:1", "here"));
    assert_eq!(desk.shown("packages"), "packages = \"conf.d/there\"  # conf.d/a.toml:1");
    let flagged = Desk::new("").flag("spool", "here").load().unwrap();
    let expected = std::env::current_dir().unwrap().join("here/inbox");
    assert_eq!(flagged.config.layout.inbox, expected);
}

#[test]
fn sinks_are_made_from_their_tables_with_the_type_that_they_name() {
    let desk = Desk::new(
        "spool = \"/s\"\nsink = [\"package\", \"second\", \"stdout\", \"run\", \"package\"]\n\
         [sinks.second]\ntype = \"package\"\ndir = \"/second\"\n\
         [sinks.stdout]\nformat = \"json\"\n\
         [sinks.run]\ntype = \"exec\"\ncommand = [\"porch\", \"{intent}\"]\n",
    );
    let sink = |name: &str, kind| SinkSettings { name: name.to_owned(), kind, rate: None };
    let expected = [
        sink("package", SinkKind::Package { dir: "/s/packages".into() }),
        sink("second", SinkKind::Package { dir: "/second".into() }),
        sink("stdout", SinkKind::Stdout { format: StdoutFormat::Json }),
        sink(
            "run",
            SinkKind::Exec {
                command: vec!["porch".to_owned(), "{intent}".to_owned()],
                dir: "/s/out".into(),
                timeout: Duration::from_secs(30),
            },
        ),
    ];
    assert_eq!(desk.load().unwrap().config.sinks, expected);
}

#[test]
fn a_sink_of_no_known_type_or_name_or_without_its_command_is_refused() {
    let types = "there are package, stdout, exec, git, kubernetes, kubectl, porch";
    refused(
        "sink = [\"gti\"]",
        &format!("intentd.toml:1: sink `gti` is of no known type (`gti`); {types}"),
    );
    refused(
        "[sinks.a]\ntype = \"b\"",
        &format!("intentd.toml:2: sink `a` is of no known type (`b`); {types}"),
    );
    for (key, expected) in [
        ("api_version = \"apps\"", "a group and a version, such as `apps/v1`"),
        ("api_version = \"/v1\"", "a group and a version, such as `apps/v1`"),
        ("api_version = \"../v1\"", "a group and a version, such as `apps/v1`"),
        ("plural = \"deployments/x\"", "a kind's name in addresses, such as `deployments`"),
        ("kind = \"De/ployment\"", "a kind, such as `Deployment`"),
        ("field_manager = \"a\\nb\"", "at most 128 characters that can be printed"),
    ] {
        let name = key.split(' ').next().unwrap();
        refused(
            &format!("sink = [\"kubernetes\"]\n[sinks.kubernetes]\n{key}"),
            &format!("intentd.toml:3: `sinks.kubernetes.{name}` has to be {expected}"),
        );
    }
    for api_version in ["v1", "apps/v1", "example.com/v1alpha1"] {
        let main = format!("sink = [\"kubectl\"]\nsinks.kubectl.api_version = \"{api_version}\"");
        Desk::new(&main).load().unwrap();
    }
    refused("sink = [\"exec\"]", "sink `exec` needs `command`");
    refused("sink = [\"git\"]", "sink `git` needs `remote`");
    refused("sink = [\"exec\"]\nsinks.exec.command = []", "sink `exec` needs `command`");
    let name = "named with at most 64 letters, digits, `.`, `_` and `-`, and no dot in front";
    refused(
        "[sinks.\"../x\"]\ntype = \"exec\"",
        &format!("intentd.toml:1: `sinks.../x` has to be {name}"),
    );
}

#[test]
fn the_packages_flag_wins_over_the_table_of_the_sink() {
    let dir = |desk: &Desk| match &desk.load().unwrap().config.sinks[0].kind {
        SinkKind::Package { dir } => dir.clone(),
        other => panic!("{other:?}"),
    };
    let desk = Desk::new("packages = \"/top\"\n[sinks.package]\ndir = \"/table\"");
    assert_eq!(dir(&desk), Path::new("/table"));
    let desk = desk.flag("packages", "/flag");
    assert_eq!(dir(&desk), Path::new("/flag"));
    assert_eq!(desk.shown("dir"), "dir = \"/flag\"  # --packages");
}

#[test]
fn what_is_shown_can_be_read_again_and_means_the_same() {
    let desk = Desk::new(
        "sink = [\"a.b\"]\nspool = \"/s\"\n[sinks.\"a.b\"]\ntype = \"exec\"\n\
         command = [\"x\", 'quote\" and \\ and \u{1b}[2J']\n\
         [policy]\nallowed_namespaces = [\"ran-*\"]\n\
         [[policy.bounds]]\nnamespace = \"ran-?\"\nmax = 3\n",
    );
    // TOML has no raw control characters in literal strings.
    assert!(desk.load().is_err());
    let desk = Desk::new(
        "sink = [\"a.b\"]\nspool = \"/s\"\n[sinks.\"a.b\"]\ntype = \"exec\"\n\
         command = [\"x\", \"quote' and \\\" and \\\\ and \\u001b[2J and \\n\"]\n\
         [policy]\nallowed_namespaces = [\"ran-*\"]\n\
         [[policy.bounds]]\nnamespace = \"ran-?\"\nmax = 3\n",
    );
    let loaded = desk.load().unwrap();
    for origin in [false, true] {
        let again = Desk::new(&loaded.show(origin)).load().unwrap();
        assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
        assert!(!loaded.show(origin).contains('\u{1b}'));
    }
}

#[test]
fn a_reload_names_the_keys_that_need_a_restart() {
    let changes = |newer: &str| {
        let head = "spool = \"/s\"\n";
        let desk = |text: &str| Desk::new(&format!("{head}{text}")).load().unwrap();
        desk("").changes_for_a_restart(&desk(newer))
    };
    assert_eq!(changes(""), [] as [&str; 0]);
    assert_eq!(
        changes("drain = \"1s\"\nlog_level = \"debug\"\n[policy]\nreplicas_max = 3"),
        [] as [&str; 0]
    );
    assert_eq!(
        changes("[watch]\nrescan = \"1s\"\n[settle]\nlease = false"),
        ["settle.lease", "watch.rescan"]
    );
    assert_eq!(changes("sink = [\"stdout\"]"), ["sink", "sinks"]);
    assert_eq!(changes("[sinks.package]\ndir = \"/p\""), ["sinks"]);
    assert_eq!(changes("[sinks.stdout]\nformat = \"json\""), [] as [&str; 0], "it is not in use");
}
