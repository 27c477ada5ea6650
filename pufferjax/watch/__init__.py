"""What people look at once there is a run: curves, animations, a policy at play, the states the curriculum holds."""
