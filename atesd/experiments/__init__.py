"""What is played: runs of an agent in an environment, their files, and training over many of them."""
