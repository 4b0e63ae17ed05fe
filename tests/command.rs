//! Commands of the configuration: their group, their limits, their end.
//!
//! Not beside the code, because a fork copies the descriptors of all threads for a moment: in the process of the
//! unit tests those of the store, whose lock is seen as taken then.

mod groups {
    use hksvd::sys::fork::End;
    use hksvd::sys::spawn::{Group, shell};
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn null() -> std::fs::File {
        std::fs::File::open("/dev/null").expect("there")
    }

    fn end(group: &Group) -> End {
        loop {
            if let Some(end) = group.reap() {
                return end;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it prints, and how it ends.
    fn run(command: &str, variables: &[(&str, &str)]) -> (String, End) {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let group = shell(command, variables, null().as_fd(), writer.as_fd()).expect("a process");
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("UTF-8");
        (said, end(&group))
    }

    #[test]
    fn a_command_has_its_variables_its_output_and_its_end() {
        let variables = [("HKSVD_CAMERA_ACTIVE", "0"), ("HKSVD_B", "a 'b' $c")];
        let (said, end) = run("echo \"$HKSVD_CAMERA_ACTIVE,$HKSVD_B,${PATH:+path}\"; exit 3", &variables);
        assert_eq!((said.as_str(), end), ("0,a 'b' $c,path\n", End::Exited(3)));
        // Also when this process has one of that name: a hook may have started it anew.
        assert_eq!(run("echo $PATH", &[("PATH", "/nowhere")]).0, "/nowhere\n");
        assert_eq!(run("kill -9 $$", &[]).1, End::Killed(9));
        assert_eq!(run("/no/such/program 2>/dev/null", &[]).1, End::Exited(127));
        assert!(shell("a\0b", &[], null().as_fd(), null().as_fd()).is_err());
    }

    #[test]
    fn it_hears_signals_and_is_its_own_group() {
        // `cut` of 22 fields: 5 is the group.
        let (said, _) = run("grep -E 'Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$", &[]);
        let lines: Vec<&str> = said.lines().collect();
        let mask = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_eq!(mask(lines[0]), 0, "{said}");
        assert_eq!(mask(lines[1]) & 1 << (libc::SIGPIPE - 1), 0, "{said}");
        assert_eq!(lines[2], lines[3]);
    }

    #[test]
    fn the_whole_group_is_killed_after_its_leader_has_ended() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let group = shell("sleep 1000 & sleep 1000 & exit 4", &[], null().as_fd(), writer.as_fd()).expect("a process");
        drop(writer);
        while !group.has_ended() {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Both sleeps hold the pipe open: it ends when they do.
        group.kill();
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
        assert_eq!((end(&group), group.has_ended()), (End::Exited(4), true));
        group.kill();
    }
}

mod limits {
    use hksvd::io::command::{AT_ONCE, Commands, Failed, Feeding, Order};
    use hksvd::io::runtime::{Executor, now, or, sleep_until};
    use std::io;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    fn order(command: &str) -> Order<'_> {
        Order { command, variables: &[("HKSVD_X", "y")], limit: LONG }
    }

    /// Lets a test run commands, and looks that none is left.
    fn with<R>(test: impl AsyncFnOnce(&Commands) -> R) -> R {
        let executor = Executor::default();
        let commands = Commands::new(executor.clone()).expect("/dev/null");
        executor.block_on(async {
            let result = test(&commands).await;
            while commands.running() > 0 {
                sleep_until(now() + Duration::from_millis(2)).await;
            }
            result
        })
    }

    #[test]
    fn output_is_taken_and_the_end_is_told() {
        with(async |commands| {
            assert_eq!(commands.capture(order("printf $HKSVD_X; cat"), 10).await.expect("fine"), b"y");
            assert_eq!(commands.capture(order("true"), 10).await.expect("fine"), b"");
            let large = commands.capture(order("head -c 300000 /dev/zero"), 300_000).await.expect("fine");
            assert_eq!(large.len(), 300_000);
            commands.run(order("test $HKSVD_X = y")).await.expect("fine");
            for (command, said) in [
                ("exit 3", "ended with exit code 3"),
                ("kill -SEGV $$", "was killed by SIGSEGV"),
                ("no-such-command-here 2>/dev/null", "ended with exit code 127 (no such command?)"),
            ] {
                assert_eq!(commands.run(order(command)).await.expect_err(command).to_string(), said);
                let printed = commands.capture(order(command), 10).await;
                assert_eq!(printed.expect_err(command).to_string(), said);
            }
        });
    }

    #[test]
    fn too_much_and_too_long_are_killed() {
        with(async |commands| {
            let much = commands.capture(order("exec cat /dev/zero"), 100_000).await;
            assert!(matches!(much, Err(Failed::TooMuch(100_000))));
            let exact = commands.capture(order("head -c 11 /dev/zero"), 10).await;
            assert!(matches!(exact, Err(Failed::TooMuch(10))));
            let limit = Duration::from_millis(50);
            for command in [
                "sleep 1000",
                "exec >&-; sleep 1000",
                "echo x; sleep 1000; true",
                "trap '' TERM HUP; sleep 1000 & wait",
            ] {
                let short = Order { limit, ..order(command) };
                assert!(matches!(commands.run(short).await, Err(Failed::TooLong(_))), "{command}");
                assert!(matches!(commands.capture(short, 10).await, Err(Failed::TooLong(_))), "{command}");
            }
        });
    }

    #[test]
    fn what_is_left_in_the_background_does_not_hold_the_output() {
        with(async |commands| {
            let printed = commands.capture(order("sleep 1000 & echo $!"), 100).await.expect("fine");
            let sleeping = format!("/proc/{}/status", String::from_utf8(printed).unwrap().trim());
            // Killed with its group; whoever inherits it may not have reaped it.
            let gone = || match std::fs::read_to_string(&sleeping) {
                Ok(status) => status.contains("State:\tZ"),
                Err(_) => true,
            };
            while !gone() {
                sleep_until(now() + Duration::from_millis(2)).await;
            }
        });
    }

    #[test]
    fn who_stops_waiting_ends_the_command() {
        with(async |commands| {
            let given_up = or(async { Some(commands.run(order("sleep 1000")).await) }, async { None }).await;
            assert!(given_up.is_none());
            assert_eq!(commands.running(), 1);
        });
    }

    #[test]
    fn there_is_a_limit_and_an_end() {
        with(async |commands| {
            let fed: Vec<_> = (0..AT_ONCE).map(|_| commands.feed("sleep 1000", &[]).expect("fine")).collect();
            assert!(matches!(commands.run(order("true")).await, Err(Failed::Busy)));
            assert!(!fed[0].has_ended());
            commands.end_all().await;
            assert!(fed.iter().all(Feeding::has_ended));
        });
    }

    #[test]
    fn a_command_is_fed() {
        let path = std::env::temp_dir().join(format!("hksvd-fed-{}", std::process::id()));
        let read = with(async |commands| {
            let feeding = commands.feed(&format!("cat >{}", path.display()), &[]).expect("fine");
            assert_eq!(feeding.write(b"sound").expect("room"), 5);
            while !std::fs::read(&path).is_ok_and(|read| read == b"sound") {
                sleep_until(now() + Duration::from_millis(2)).await;
            }
            drop(feeding);
            while commands.running() > 0 {
                sleep_until(now() + Duration::from_millis(2)).await;
            }
            std::fs::read(&path).expect("written")
        });
        assert_eq!(read, b"sound");
        std::fs::remove_file(&path).expect("removed");
        with(async |commands| {
            let stuck = commands.feed("sleep 1000", &[]).expect("fine");
            let full = loop {
                if let Err(error) = stuck.write(&[0; 4096]) {
                    break error.kind();
                }
            };
            assert_eq!(full, io::ErrorKind::WouldBlock);
            let deaf = commands.feed("true", &[]).expect("fine");
            while !deaf.has_ended() {
                sleep_until(now() + Duration::from_millis(2)).await;
            }
            assert_eq!(deaf.write(b"x").expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
