"""Work spread over other processes by Dask: where they are, and tasks that outlive workers."""
