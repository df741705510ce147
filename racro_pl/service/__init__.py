"""An OpenAI-compatible server that gives a text-only model eyes: images reach the reasoner as captions."""
