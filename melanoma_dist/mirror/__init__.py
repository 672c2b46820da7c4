"""Mirror a run in remote storage while it trains, so that another machine can resume it."""
