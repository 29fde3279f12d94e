"""Losses as functions of logits and labels."""
