"""Everything that runs beside the potential: typed Python that knows no AiiDA and is uploaded with every job."""
