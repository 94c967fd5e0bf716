//! `gatebook demo`.

use std::process::ExitCode;

use clap::Args;

/// Play the whole story on this machine, with nothing set up before
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Exit after the story: 0 only if every step did what it says
    #[arg(long)]
    once: bool,
}

/// Plays the story.
pub(crate) async fn run(args: DemoArgs) -> ExitCode {
    let _ = args.once;
    ExitCode::FAILURE
}
