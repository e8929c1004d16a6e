"""What is common to language models, whichever engine asks them: objective, tools, answers, failures, access."""
