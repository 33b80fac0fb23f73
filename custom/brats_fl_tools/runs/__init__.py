"""Running a job, anywhere: in the simulator, as processes on one host, in a federation of kits."""
