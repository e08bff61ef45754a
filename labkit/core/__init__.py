"""What passes between the stages, and what all of them use: records, config, files, seeds."""
