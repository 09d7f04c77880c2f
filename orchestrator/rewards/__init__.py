"""Reward maths: all prefix scores of a response in one pass; reference weights; losses' inputs."""
