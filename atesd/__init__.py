"""The program: experiments with students and controllers, and the commands that make them."""
