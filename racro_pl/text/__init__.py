"""Prompts and answers: pure functions from text to text."""
